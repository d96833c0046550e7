"""Points of one method, model and setting taken together over their seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from leaderboard.records.errors import one_line
from leaderboard.records.results import Correct, MethodResults, TrackResults
from leaderboard.records.schema import WEAKEST_FIRST, Measured, Unmeasured
from leaderboard.tables.rows import RowKey


@dataclass(frozen=True)
class Group:
    """The points of one row."""

    results: MethodResults
    model: str
    setting: str
    points: list[Measured | Unmeasured] = field(default_factory=list)

    @property
    def key(self) -> RowKey:
        """Return what the row is."""
        return self.model, self.results.method.name, self.setting

    @property
    def measured(self) -> list[Measured]:
        """Return the seeds that have numbers."""
        return [point for point in self.points if isinstance(point, Measured)]

    def correct(self) -> Correct:
        """Return which test images were right, (seeds, images)."""
        return np.stack([self.results.correct[point.id] for point in self.measured])

    def status(self) -> str:
        """Return `ok`, how many of the seeds were measured, or what became of all of
        them.
        """
        lost = [point.status for point in self.points if isinstance(point, Unmeasured)]
        if not self.measured:
            return min(lost)  # failed before skipped
        return f"{len(self.measured)} of {len(self.points)} seeds" if lost else "ok"

    def reason(self) -> str:
        """Return why seeds have no numbers, a failure's reason before that of a
        skip.
        """
        lost = [point for point in self.points if isinstance(point, Unmeasured)]
        return next(
            (
                one_line(point.reason or "no reason given")
                for point in sorted(lost, key=lambda point: point.status)
            ),
            "",
        )

    def origin(self) -> str:
        """Return the weakest label of the points and the bundle that they came from;
        nothing for our own.
        """
        origin = self.results.origin
        if origin is None:
            return ""
        labels = {origin.labels.get(point.id, "self-reported") for point in self.points}
        return (
            f"{next(label for label in WEAKEST_FIRST if label in labels)}, bundle "
            f"{origin.bundle[:12]}"
        )


def setting_text(setting: Mapping[str, object]) -> str:
    """Return a setting as `k=v` text."""
    return one_line(
        ", ".join(
            f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in setting.items()
        )
    )


def find_groups(track: TrackResults) -> list[Group]:
    """Return the points of a track taken together over their seeds."""
    groups: dict[RowKey, Group] = {}
    for results in track.methods:
        for point in results.points:
            group = Group(results, point.model, setting_text(point.setting))
            groups.setdefault(group.key, group).points.append(point)
    return list(groups.values())


def find_hits(track: TrackResults) -> dict[RowKey, Correct]:
    """Return which test images each measured row got right, (seeds, images)."""
    return {group.key: group.correct() for group in find_groups(track) if group.measured}
