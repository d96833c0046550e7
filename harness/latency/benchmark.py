"""The benchmark that `harness.latency.measure` has pytest run for each artefact: dense,
point, dense, point, ..., dense, in one process.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from harness.latency import runtimes
from harness.latency.clock import CLOCKS
from harness.latency.job import LatencyJob
from harness.latency.memory import peak_mib
from harness.latency.runtimes import Program, Runner, load
from harness.point import predictions
from leaderboard.records.params import HardwareParams

STABLE = 0.05  # warm until the median of five calls moves by less than this share
BLOCKS = 20  # or for this many blocks of five
TIMED = 32  # test images that rounds are drawn from in turn, or as many as a batch holds
# test images, at most, whose predictions are compared with the artefact's, and how many
# at a time
COMPARED, TOGETHER = 1000, 250
# share of them that must be the same: integer kernels round elsewhere than the artefact
# does
AGREEMENT = 0.97


class Differs(Exception):
    """What the runtime makes of the artefact predicts something else."""


@lru_cache(maxsize=2)  # dense and the point at hand, whose batch sizes follow one another
def program(hardware: str, artefact: Path) -> Program:
    """Return an artefact, loaded by the profile `hardware` (JSON)."""
    return load(HardwareParams.model_validate_json(hardware), artefact)


def seconds_of(run: Runner, images: Tensor, clock: Callable[[], float]) -> float:
    """Return the seconds of one call."""
    start = clock()
    run(images)
    return clock() - start


def warm(run: Runner, images: Tensor, clock: Callable[[], float]) -> None:
    """Call until the running median is stable."""
    last = float("inf")
    for _ in range(BLOCKS):
        median = statistics.median(seconds_of(run, images, clock) for _ in range(5))
        if abs(median - last) < STABLE * median:
            return
        last = median


@lru_cache(maxsize=1)
def agreement(loaded: Program, images: Tensor, folder: Path) -> dict[str, int]:
    """Return for how many of `images` what is loaded predicts what the artefact in
    `folder` predicted; raise Differs if too few.
    """
    size = min(TOGETHER, len(images))
    # all of one size, for which a runtime may compile
    parts = images[: len(images) // size * size].split(size)
    run = loaded(parts[0])
    predicted = torch.cat([run(part).argmax(1).cpu() for part in parts]).numpy()
    same = int((predicted == predictions.read(folder)["class"][: len(predicted)]).sum())
    if same < AGREEMENT * len(predicted):
        raise Differs(
            f"it predicts the artefact's class for {same} of {len(predicted)} test images only"
        )
    return {"same": same, "images": len(predicted)}


@torch.inference_mode()
def test_latency(
    benchmark: BenchmarkFixture, job: LatencyJob, hardware: HardwareParams, images: Tensor
) -> None:
    """Time the point `rounds` times, and dense before the first, between any two and
    after the last; every round takes the next of the test images.
    """
    torch.set_num_threads(hardware.threads)
    clock, profile = CLOCKS[hardware.device], hardware.model_dump_json()
    start = CLOCKS["cpu"]()
    batches = cycle(images[: max(TIMED, job.batch)].split(job.batch))
    loaded = program(profile, job.artefact)
    same = (
        None
        if runtimes.of(hardware).as_evaluated(hardware)
        else agreement(loaded, images, job.point.folder)
    )
    dense, point = program(profile, job.dense)(next(batches)), loaded(next(batches))
    between: list[float] = []
    warm(dense, next(batches), clock)
    warm(point, next(batches), clock)
    peak = peak_mib(lambda: point(next(batches)), hardware.device)

    def setup() -> tuple[tuple[Tensor], dict[str, Any]]:
        batch = next(batches)
        between.append(seconds_of(dense, batch, clock))
        return (batch,), {}

    benchmark.pedantic(
        point,
        setup=setup,
        rounds=hardware.rounds,
        iterations=1,
        warmup_rounds=hardware.warmup_rounds,
    )
    between.append(seconds_of(dense, next(batches), clock))
    about = {
        **job.point.name,
        "model": job.point.model,
        "setting": job.point.setting,
        "seed": job.point.seed,
    }
    measured = {
        "dense": between[-hardware.rounds - 1 :],
        "agreement": same,
        "peak_mib": peak,
        "seconds": round(CLOCKS["cpu"]() - start, 3),
    }
    benchmark.extra_info.update({**about, "batch": job.batch, **measured})
