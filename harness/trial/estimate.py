"""What a trial would run, and about how long that takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from harness.data import dataset
from harness.data.splits import drawn
from harness.data.transform import transform_of
from harness.models import build
from harness.run.points import expand
from harness.trial.asked import Asked
from leaderboard.records.params import Params

BATCH = 8  # images timed


@dataclass(frozen=True)
class Counts:
    """How many images a trial calibrates on and tests on, and their classes."""

    calibration: int
    test: int
    classes: int


def counted(made: Params, asked: Asked) -> Counts:
    """Count the images of a trial; raise UserError where they are too few."""
    track = made.track(asked.track)
    source = dataset(track.dataset, track.data).load()
    which = drawn(source, track)
    return Counts(len(which.calibration), len(which.test), source.classes)


def estimate(made: Params, asked: Asked, images: Counts) -> Iterator[str]:
    """Yield a line a method, then how long evaluating all of them takes, by the time
    that the untrained model takes for a few images; compressing comes on top of it.
    """
    points = {
        method: [point.id for point in expand(made, asked.track, method)] for method in made.plans
    }
    for method, ids in points.items():
        yield f"{method}: {', '.join(ids)}"
    count = sum(map(len, points.values()))
    seconds = _seconds(made, asked, images.classes) * images.test * count / made.run.workers
    yield (
        f"{count} points, {images.calibration} calibration and {images.test} test images: "
        f"about {seconds / 60:.0f} minutes for evaluating on {made.run.workers} processes, and "
        "what the methods take"
    )


@torch.inference_mode()
def _seconds(made: Params, asked: Asked, classes: int) -> float:
    """Return the seconds of one image in one thread."""
    track = made.track(asked.track)
    torch.set_num_threads(1)
    model = build.build(track.models[asked.model.row], 3, classes).eval()
    images = torch.zeros(BATCH, 3, *transform_of(track, asked.model.row).size)
    model(images)
    start = time.perf_counter()
    model(images)
    return (time.perf_counter() - start) / BATCH
