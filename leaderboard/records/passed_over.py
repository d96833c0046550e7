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
    """Yield of each such model in one line that it is passed over, and what to do."""
    for name in passed_over(params, track, info):
        model = params.track(track).models[name]
        yield (
            f"{track}: model '{name}' is passed over: weights {model.weights} of {model.timm} "
            "cannot be had (they are not here, and train found no network to fetch them): run "
            f"`shrinkmark train {track}` where there is one, or name a file by `weights`"
        )
