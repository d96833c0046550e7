"""Where the files of one version of the experiment lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leaderboard.records.results import track_folder

ROOT = Path(__file__).parents[2]  # the folder that this code lies in


@dataclass(frozen=True)
class Paths:
    """Where the files of one version of the experiment lie, below the folder that holds
    params.yaml.
    """

    root: Path
    version: str

    def data(self, track: str) -> Path:
        """Return the folder of the track's splits."""
        return self.root / "artefacts" / track / "data"

    def dense(self, track: str) -> Path:
        """Return the folder of the track's dense weights."""
        return self.root / "artefacts" / track / "dense"

    def artefacts(self, track: str, method: str) -> Path:
        """Return the folder of the artefacts of a method, one folder a point."""
        return self.root / "artefacts" / track / "points" / method

    def spent(self, track: str, method: str, point: str) -> Path:
        """Return the file about what a point took here."""
        return self.root / "artefacts" / track / "spent" / method / f"{point}.json"

    def spent_on_dense(self, track: str, model: str) -> Path:
        """Return the file about what a dense model took here."""
        return self.root / "artefacts" / track / "spent" / f"{model}.json"

    def records(self, track: str) -> Path:
        """Return the folder of what is committed of a track."""
        return track_folder(self.root / "results", self.version, track)

    def points(self, track: str, method: str) -> Path:
        """Return the file of a method's point records."""
        return self.records(track) / "points" / f"{method}.json"

    def predictions(self, track: str, method: str) -> Path:
        """Return the file of a method's test predictions."""
        return self.records(track) / "predictions" / f"{method}.safetensors"

    def costs(self, track: str) -> Path:
        """Return the folder of what points took, one file for each machine, named after
        its fingerprint.
        """
        return self.records(track) / "costs"

    def latency(self, track: str, hardware: str) -> Path:
        """Return the folder of the pytest-benchmark files of a hardware profile, one
        for each machine, named after its fingerprint.
        """
        return self.records(track) / "latency" / hardware

    def onnx(self, track: str) -> Path:
        """Return the folder of the ONNX models of the track's artefacts."""
        return self.root / "artefacts" / track / "onnx"
