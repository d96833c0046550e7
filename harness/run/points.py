"""Points: method x model x setting x seed, the unit of work, of resuming and of
storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.run import registry
from leaderboard.records.params import Params


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
        """Return a name that is unique within track and method, and a legal file
        name.
        """
        parts = [
            self.model,
            *(f"{key}={value}" for key, value in self.setting.items()),
            f"seed={self.seed}",
        ]
        return "_".join(parts).replace("/", "-")

    @property
    def name(self) -> str:
        """Return a name that is unique among all tracks and methods."""
        return f"{self.track} {self.method} {self.id}"


def expand(params: Params, track: str, method: str) -> list[Point]:
    """Return the points of `method` on `track`, every setting validated; a method that
    is not stochastic gets the first seed only.
    """
    plan, about = params.plan(track, method), params.track(track)
    for setting in plan.settings:
        registry.configure(method, setting)
    seeds = about.seeds[: plan.seeds] if registry.load(method).stochastic else about.seeds[:1]
    models = [model for model in about.models if plan.models is None or model in plan.models]
    return [
        Point(track, method, model, setting, seed)
        for model in models
        for setting in plan.settings
        for seed in seeds
    ]
