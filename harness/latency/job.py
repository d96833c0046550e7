"""One artefact to be timed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.latency.plan import TimedPoint


@dataclass(frozen=True)
class LatencyJob:
    """A point at one batch size; `artefact` and `dense` are what the runtime has
    prepared of both.
    """

    point: TimedPoint
    batch: int
    artefact: Path
    dense: Path

    @property
    def id(self) -> str:
        """Return the name of the benchmark."""
        return f"{self.point.method}-{self.point.point}-batch={self.batch}"
