"""A part of a track: some of its methods, models and seeds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from leaderboard.records.errors import unknown
from leaderboard.records.method_settings import TrackPlan
from leaderboard.records.params import Params
from leaderboard.records.schema import DENSE


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
    models = {
        name: model
        for name, model in about.models.items()
        if name in (chosen.models or about.models)
    }
    runs = {name: _on(models, run) for name, run in about.methods.items() if name in plans}
    part = about.model_copy(
        update={"models": models, "seeds": about.seeds[: chosen.seeds], "methods": runs}
    )
    methods, chains = (
        {name: plan for name, plan in kind.items() if name in plans}
        for kind in (params.methods, params.chains)
    )
    return params.model_copy(
        update={"tracks": params.tracks | {track: part}, "methods": methods, "chains": chains}
    )


def _on(models: Collection[str], run: TrackPlan) -> TrackPlan:
    return (
        run
        if run.models is None
        else run.model_copy(update={"models": [name for name in run.models if name in models]})
    )
