"""What a point asks of a node of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class TaskShape:
    """What a point asks of a node: processors and GPUs, fractions too, and GiB of
    memory (0: it is not counted).
    """

    cpus: float
    gpus: float
    gibibytes: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs, {self.gpus:g} GPUs and {self.gibibytes:g} GiB"

    @property
    def without_gpus(self) -> TaskShape:
        """Return the same without GPUs."""
        return replace(self, gpus=0)

    @property
    def resources(self) -> dict[str, float]:
        """Return what Ray calls them."""
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": self.gibibytes * 2**30}

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of a Ray task, which Ray does not try again: it does not
        count what was lost for memory.
        """
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "memory": int(self.gibibytes * 2**30) or None,
            "max_retries": 0,
        }
