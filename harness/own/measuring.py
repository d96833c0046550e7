"""What a compressed model is worth beside dense, in the columns of the tables: both are
measured as artefacts that were written and read back.
"""

from __future__ import annotations

import copy
import tempfile
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from harness.data.splits import TestSplit
from harness.latency.benchmark import seconds_of, warm
from harness.latency.clock import CLOCKS
from harness.own.errors import value_errors
from harness.own.images import Images, classes_of, device_of, given
from harness.own.stored import write
from harness.point import store
from harness.point.batch_independence import evaluated
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

    Accuracy is of the labelled `images`, which no method may have seen; differences are
    paired image by image. The latency is that of one image on the device of `dense`,
    with torch's own number of threads, run eagerly.
    """
    seen = given(images, labels, torch.device("cpu"), "images")
    if seen.labels is None:
        raise ValueError(
            "images: they have no labels: give labels=, or a loader that yields pairs of images "
            "and labels"
        )
    test = TestSplit(seen.images, seen.labels, torch.zeros(1), torch.ones(1))
    device = device_of(dense)
    classes_of(copy.deepcopy(dense).eval(), seen.images.to(device))
    shape = tuple(seen.images.shape[1:])
    with tempfile.TemporaryDirectory() as scratch, value_errors():
        small, large = (
            _read_back(model, shape, Path(scratch) / name)
            for model, name in ((compressed, "compressed"), (dense, "dense"))
        )
        small_found, small_counts = evaluated(small, test, device)
        large_found, large_counts = evaluated(large, test, device)
        right, right_dense = (found["rank"][None] == 0 for found in (small_found, large_found))
        macs, dense_macs = (
            round(float(np.mean([count.macs for count in counts])))
            for counts in (small_counts, large_counts)
        )
        rounds, seconds = _timed(
            small.on(device), large.on(device), seen.images[:WARMED].to(device)
        )
    columns = _interval("accuracy_percent", wilson(int(right.sum()), len(seen.labels)), 100)
    columns |= _interval("delta_points", paired_difference(right, right_dense), 100)
    columns |= {
        "bytes": small.bytes,
        "compression_ratio": large.bytes / small.bytes,
        "parameters": small.parameters,
    }
    columns |= {"macs": macs, "flops": 2 * macs, "theoretical_speedup": dense_macs / macs}
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
