"""What compressed models answer beside dense, where images have no labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.data import splits
from harness.point import store
from harness.run.paths import Paths
from leaderboard.records.params import Params
from leaderboard.records.results import read_record
from leaderboard.records.schema import DENSE, Measured, MethodPoints

BATCH = 32
IMAGES = 256  # that a divergence is the mean of


@dataclass(frozen=True)
class Divergence:
    """The Kullback-Leibler divergence of a measured point's class probabilities from
    dense's, in nats, the mean of the first `images` test images.
    """

    method: str
    setting: Mapping[str, object]
    images: int
    nats: float


def divergences(params: Params, paths: Paths, track: str) -> list[Divergence]:
    """Return how far every measured point of a track of one model is from dense."""
    (model,) = params.track(track).models
    test = splits.TestSplit.read(splits.folder_of(paths.data(track), params.track(track), model))
    points = [(method, point) for method in params.plans for point in _points(paths, track, method)]
    (dense,) = (point for method, point in points if method == DENSE)
    expected = _log_shares(paths.artefacts(track, DENSE) / dense.id, test)
    return [
        Divergence(
            method,
            point.setting,
            len(expected),
            _divergence(expected, _log_shares(paths.artefacts(track, method) / point.id, test)),
        )
        for method, point in points
    ]


def _points(paths: Paths, track: str, method: str) -> list[Measured]:
    found = read_record(paths.points(track, method), MethodPoints).points
    return [point for point in found if isinstance(point, Measured)]


@torch.inference_mode()
def _log_shares(artefact: Path, test: splits.TestSplit) -> Tensor:
    """Return log probabilities (images, classes)."""
    model = store.read(artefact).module
    images = test.images(IMAGES).split(BATCH)
    return torch.cat([model(batch).log_softmax(1) for batch in images])


def _divergence(expected: Tensor, found: Tensor) -> float:
    """Return KL(expected || found), the mean over images."""
    return float((expected.exp() * (expected - found)).sum(1).mean())
