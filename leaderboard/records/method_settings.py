"""Which points of a method are run: everywhere, and on one track otherwise."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from leaderboard.records.params_base import Name, Strict

Settings = Annotated[list[dict[str, Any]], Field(min_length=1)]


class TrackPlan(Strict):
    """What a track does otherwise with a method: its settings, how many of the track's
    seeds (the first so many), which models ([]: no point).

    scratch_epochs: how long the method trains from scratch, in place of the track's
    epochs.
    """

    settings: Settings | None = None
    seeds: PositiveInt | None = None
    models: list[Name] | None = None
    scratch_epochs: PositiveFloat | None = None


class MethodPlan(Strict):
    """The settings of a method, each a mapping of its dataclass fields, and how many of
    a track's seeds it runs.
    """

    settings: Settings
    seeds: PositiveInt | None = None

    def on(self, own: TrackPlan) -> Plan:
        """Return what a track runs that does otherwise as `own` says."""
        return Plan(
            settings=own.settings or self.settings,
            seeds=own.seeds or self.seeds,
            models=own.models,
            scratch_epochs=own.scratch_epochs,
        )


class Plan(MethodPlan):
    """What a track runs of a method; None is what the track says."""

    models: list[Name] | None = None
    scratch_epochs: PositiveFloat | None = None
