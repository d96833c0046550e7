"""One artefact to be timed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class LatencyJob:
    """The artefact of a point at one batch size, timed against dense of the same model."""

    method: str
    point: str
    model: str
    setting: dict[str, Any]
    seed: int
    batch: int
    folder: Path
    dense: Path

    @property
    def id(self) -> str:
        """Return the name of the benchmark."""
        return f"{self.method}-{self.point}-batch={self.batch}"
