"""A part of a track: some of its methods, models and seeds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from leaderboard.records.errors import unknown
from leaderboard.records.params import Params, TrackParams
from leaderboard.records.passed_over import passed_over
from leaderboard.records.schema import DENSE, TrackInfo


@dataclass(frozen=True)
class Selection:
    """The methods and models of a track that are run, and how many of its seeds; empty
    and None are all.
    """

    methods: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    seeds: int | None = None


def selected(params: Params, track: str, chosen: Selection) -> Params:
    """Return the experiment with the chosen part of `track`; dense is always in it.
    Raise UserError for a name that params.yaml lacks.
    """
    about = params.track(track)
    for name in chosen.models:
        if name not in about.models:
            raise unknown(f"model of {track}", name, about.models)
    wanted = {DENSE, *chosen.methods} if chosen.methods else set(params.plans)
    plans = {name: params.method(name) for name in wanted}
    part = _with_models(about, chosen.models or about.models)
    part = part.model_copy(
        update={
            "seeds": about.seeds[: chosen.seeds],
            # who names a model wants methods to run on it
            "methods_on": None if chosen.models else about.methods_on,
            "methods": {name: run for name, run in part.methods.items() if name in plans},
        }
    )
    methods, chains = (
        {name: plan for name, plan in kind.items() if name in plans}
        for kind in (params.methods, params.chains)
    )
    return params.model_copy(
        update={"tracks": params.tracks | {track: part}, "methods": methods, "chains": chains}
    )


def at_hand(params: Params, track: str, info: TrackInfo) -> Params:
    """Return the experiment without the models that `track` passes over."""
    return without(params, track, passed_over(params, track, info))


def without(params: Params, track: str, models: Collection[str]) -> Params:
    """Return the experiment in which `track` lacks these models."""
    about = params.track(track)
    part = _with_models(about, [name for name in about.models if name not in models])
    return params.model_copy(update={"tracks": params.tracks | {track: part}})


def _with_models(about: TrackParams, names: Collection[str]) -> TrackParams:
    """Return the track with so many of its models; a method runs on those of its own
    that are left.
    """

    def left(models: list[str] | None) -> list[str] | None:
        return None if models is None else [name for name in models if name in names]

    runs = {
        name: run.model_copy(update={"models": left(run.models)})
        for name, run in about.methods.items()
    }
    models = {name: model for name, model in about.models.items() if name in names}
    return about.model_copy(
        update={"models": models, "methods": runs, "methods_on": left(about.methods_on)}
    )
