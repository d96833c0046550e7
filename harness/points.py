"""Points: method x model x setting x seed, the unit of work, of resuming and of storage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import registry
from harness.params import Params

DENSE = "dense"  # the method that every ratio refers to


@dataclass(frozen=True)
class Point:
    """One method at one setting on one model of a track, with one seed."""

    track: str
    method: str
    model: str
    setting: dict[str, Any]
    seed: int

    @property
    def id(self) -> str:
        """Return a name that is unique within track and method, and a legal file name."""
        parts = [self.model, *(f"{key}={value}" for key, value in self.setting.items()), f"seed={self.seed}"]
        return "_".join(parts).replace("/", "-")


@dataclass(frozen=True)
class Paths:
    """Where the files of one version of the experiment lie, below the folder that holds params.yaml."""

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

    def code(self, name: str) -> Path:
        """Return a file of hashes of code: `shared` or `chains`."""
        return self.root / "results" / self.version / "code" / f"{name}.json"

    def records(self, track: str) -> Path:
        """Return the folder of what is committed of a track."""
        return self.root / "results" / self.version / "records" / track

    def points(self, track: str, method: str) -> Path:
        """Return the file of a method's point records."""
        return self.records(track) / "points" / f"{method}.json"

    def predictions(self, track: str, method: str) -> Path:
        """Return the file of a method's test predictions."""
        return self.records(track) / "predictions" / f"{method}.safetensors"

    def latency(self, track: str, hardware: str) -> Path:
        """Return the pytest-benchmark file of a hardware profile."""
        return self.records(track) / "latency" / f"{hardware}.json"


def expand(params: Params, track: str, method: str) -> list[Point]:
    """Return the points of `method` on `track`, every setting validated; a method that is not stochastic gets the first seed only."""
    plan, about = params.method(method).on(track), params.track(track)
    for setting in plan.settings:
        registry.configure(method, setting)
    seeds = about.seeds[: plan.seeds] if registry.load(method).stochastic else about.seeds[:1]
    models = [model for model in about.models if plan.models is None or model in plan.models]
    return [Point(track, method, model, setting, seed) for model in models for setting in plan.settings for seed in seeds]
