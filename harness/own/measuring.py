"""What a compressed model is worth beside dense, in the columns of the tables: both are
measured as artefacts that were written and read back.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.data.splits import TestSplit
from harness.latency.benchmark import seconds_of, warm
from harness.latency.clock import CLOCKS
from harness.own.errors import value_errors
from harness.own.images import Images, classes_of, device_of, given
from harness.own.stored import write
from harness.point import store
from harness.point.batch_independence import evaluated
from harness.point.counter import Count
from harness.point.predictions import Predictions
from leaderboard.records.statistics import (
    Estimate,
    median,
    paired_difference,
    paired_ratios,
    wilson,
)

ROUNDS = 50  # of one image each, compressed and dense in turn
WARMED = 32  # images that rounds are drawn from in turn


def measured(
    compressed: nn.Module, dense: nn.Module, images: Images, labels: Tensor | None
) -> pd.Series:
    """Return the columns of the tables; raise ValueError if images have no labels or a
    model is not one that can be measured.
    """
    with beside(dense, images, labels) as worth:
        return worth(compressed)


@contextmanager
def beside(
    dense: nn.Module, images: Images, labels: Tensor | None
) -> Iterator[Callable[[nn.Module], pd.Series]]:
    """Yield what measures compressed models beside `dense`, which is evaluated once.

    Accuracy is of the labelled `images`, which no method may have seen; differences are
    paired image by image. The latency is that of one image on the device of `dense`,
    with torch's own number of threads, run eagerly. Raises ValueError if images have no
    labels or a model is not one that can be measured.
    """
    seen = given(images, labels, torch.device("cpu"), "images")
    if seen.labels is None:
        raise ValueError(
            "images: they have no labels: give labels=, or a loader that yields pairs of images "
            "and labels"
        )
    test = TestSplit(seen.images, seen.labels, torch.zeros(1), torch.ones(1))
    device = device_of(dense)
    classes = classes_of(copy.deepcopy(dense).eval(), seen.images.to(device))
    low, high = int(seen.labels.min()), int(seen.labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"images: labels are from {low} to {high}, the model tells {classes} classes apart: "
            "give labels from 0 on"
        )
    shape = tuple(seen.images.shape[1:])
    with tempfile.TemporaryDirectory() as scratch, value_errors():
        large = _read_back(dense, shape, Path(scratch) / "dense")
        found = evaluated(large, test, device)

        def worth(compressed: nn.Module) -> pd.Series:
            with tempfile.TemporaryDirectory() as other, value_errors():
                small = _read_back(compressed, shape, Path(other) / "compressed")
                return _columns(
                    _Evaluated(small, *evaluated(small, test, device)),
                    _Evaluated(large, *found),
                    test,
                    device,
                )

        yield worth


@dataclass(frozen=True)
class _Evaluated:
    """An artefact with its predictions and the counts of its batches."""

    artefact: store.Artefact
    found: Predictions
    counts: list[Count]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Return for which images the label ranks first, as one seed (1, N)."""
        right: NDArray[np.bool_] = self.found["rank"][None] == 0
        return right

    @property
    def macs(self) -> int:
        return round(float(np.mean([count.macs for count in self.counts])))


def _columns(
    small: _Evaluated, large: _Evaluated, test: TestSplit, device: torch.device
) -> pd.Series:
    rounds, seconds = _timed(
        small.artefact.on(device), large.artefact.on(device), test.pixels[:WARMED].to(device)
    )
    accuracy = wilson(int(small.right.sum()), len(test.labels))
    columns = _interval("accuracy_percent", accuracy, 100)
    columns |= _interval("delta_points", paired_difference(small.right, large.right), 100)
    columns |= {
        "bytes": small.artefact.bytes,
        "compression_ratio": large.artefact.bytes / small.artefact.bytes,
        "parameters": small.artefact.parameters,
    }
    macs = small.macs
    columns |= {"macs": macs, "flops": 2 * macs, "theoretical_speedup": large.macs / macs}
    return pd.Series(columns | {"p50_ms_b1": 1e3 * seconds} | _interval("speedup_b1", rounds, 1))


def _read_back(model: nn.Module, images: tuple[int, ...], folder: Path) -> store.Artefact:
    folder.mkdir()
    write(model, images, folder)
    return store.read(folder)


def _interval(name: str, estimate: Estimate, scale: float) -> dict[str, float]:
    return {
        name: scale * estimate.value,
        f"{name}_low": scale * estimate.low,
        f"{name}_high": scale * estimate.high,
    }


@torch.inference_mode()
def _timed(compressed: nn.Module, dense: nn.Module, images: Tensor) -> tuple[Estimate, float]:
    """Return by how much `compressed` is faster than `dense`, round by round and one
    image at a time, and the median of its seconds.
    """
    clock, turn = CLOCKS[images.device.type], cycle(images.split(1))
    for model in (dense, compressed):
        warm(model, next(turn), clock)
    between, own = [seconds_of(dense, next(turn), clock)], []
    for _ in range(ROUNDS):
        own.append(seconds_of(compressed, next(turn), clock))
        between.append(seconds_of(dense, next(turn), clock))
    return median(paired_ratios(np.array(between), np.array(own))), float(np.median(own))
