"""Models that a track passes over: their weights are timm's own or on the hub, and could
not be had where its train stage ran. They join when it runs where they can.
"""

from __future__ import annotations

from collections.abc import Iterator

from leaderboard.records.params import Params
from leaderboard.records.schema import TrackInfo


def passed_over(params: Params, track: str, info: TrackInfo) -> list[str]:
    """Return the models of a track that its record lacks for want of their weights."""
    return [
        name
        for name, model in params.track(track).models.items()
        if model.fetched and name not in info.models
    ]


def lines(params: Params, track: str, info: TrackInfo) -> Iterator[str]:
    """Yield a line on such models and what to do, if there are any."""
    names = passed_over(params, track, info)
    if names:
        models = params.track(track).models
        told = (f"{name} ({models[name].timm}, {models[name].weights})" for name in names)
        yield (
            f"{track}: passed over, for their weights are not here and train found no network to "
            f"fetch them: {', '.join(told)}: run `shrinkmark train {track}` where there is one, or "
            "name files by `weights`"
        )
