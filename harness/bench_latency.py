"""The benchmark that `harness.measure` has pytest run for each artefact: dense, point, dense, point, ..., dense, in one process."""

from __future__ import annotations

import statistics
import time
from functools import cache, lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from harness import store
from harness.latency_job import LatencyJob
from harness.params import HardwareParams

STABLE = 0.05  # warm until the median of five calls moves by less than this share
BLOCKS = 20  # or for this many blocks of five


@cache
def dense_module(folder: Path) -> nn.Module:
    """Return the dense artefact, read once."""
    return store.read(folder).module


@lru_cache(maxsize=1)
def point_module(folder: Path) -> nn.Module:
    """Return an artefact, read once for its batch sizes, which follow one another."""
    return store.read(folder).module


def timed(module: nn.Module, images: Tensor) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    module(images)
    return time.perf_counter() - start


def warm(module: nn.Module, images: Tensor) -> None:
    """Call until the running median is stable."""
    last = float("inf")
    for _ in range(BLOCKS):
        median = statistics.median(timed(module, images) for _ in range(5))
        if abs(median - last) < STABLE * median:
            return
        last = median


@torch.inference_mode()
def test_latency(benchmark: BenchmarkFixture, job: LatencyJob, hardware: HardwareParams, images: Tensor) -> None:
    """Time the point `rounds` times, and dense before the first, between any two and after the last; every round takes the next of the test images."""
    torch.set_num_threads(hardware.threads)
    batches = cycle(images.split(job.batch))
    dense, point = dense_module(job.dense), point_module(job.folder)
    start, between = time.perf_counter(), list[float]()
    warm(dense, next(batches))
    warm(point, next(batches))

    def setup() -> tuple[tuple[Tensor], dict[str, Any]]:
        batch = next(batches)
        between.append(timed(dense, batch))
        return (batch,), {}

    benchmark.pedantic(point, setup=setup, rounds=hardware.rounds, iterations=1, warmup_rounds=hardware.warmup_rounds)
    between.append(timed(dense, next(batches)))
    row = {"method": job.method, "model": job.model, "setting": job.setting, "seed": job.seed, "id": job.point, "batch": job.batch}
    benchmark.extra_info.update(row | {"dense": between[-hardware.rounds - 1 :], "seconds": round(time.perf_counter() - start, 3)})
