"""Which points of a method are run: everywhere, and on one track otherwise."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from leaderboard.records.strict import Name, Strict

Settings = Annotated[list[dict[str, Any]], Field(min_length=1)]


class TrackPlan(Strict):
    """What one track does otherwise with a method: its settings, how many of the track's seeds (the first so many), which models ([]: no point).

    scratch_epochs: how long the method trains from scratch, in place of the track's epochs.
    """

    settings: Settings | None = None
    seeds: PositiveInt | None = None
    models: list[Name] | None = None
    scratch_epochs: PositiveFloat | None = None


class Plan(Strict):
    """The settings, each a mapping of the method's dataclass fields, the seeds, models and epochs from scratch; None is what the track says."""

    settings: Settings
    seeds: PositiveInt | None = None
    models: list[Name] | None = None
    scratch_epochs: PositiveFloat | None = None


class MethodPlans(Strict):
    """The settings of one method, how many of a track's seeds it runs, and the tracks that run it otherwise."""

    settings: Settings
    seeds: PositiveInt | None = None
    tracks: dict[Name, TrackPlan] = Field(default_factory=dict)

    def on(self, track: str) -> Plan:
        """Return what `track` runs."""
        own = self.tracks.get(track, TrackPlan())
        return Plan(settings=own.settings or self.settings, seeds=own.seeds or self.seeds, models=own.models, scratch_epochs=own.scratch_epochs)
