"""How fast a model is trained by its track's scratch recipe, and how near that is to
what the device can compute.

`python benchmarks/training_speed.py --model resnet20 --track cifar10_full --epochs 3`
on a machine with a GPU; `--device cpu --images 512` tries it anywhere. The training is
that of the train stage, `methods.parts.training.train.train` on
`harness.point.method_data.MethodData`; only the clock is added, at the end of each
epoch. The
first epoch warms up (cuDNN chooses kernels, the CUDA graph is captured) and stands
apart. Achieved FLOP/s = 3 x 2 x MACs x images/s, for the backward pass costs twice the
forward pass; the peak is that of a large square matrix product in the recipe's
precision, measured here before and after the training.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor

from harness.data import dataset, splits
from harness.data.transform import transform_of
from harness.latency.runtimes import processor
from harness.point.device import require, seeded
from harness.point.method_data import MethodData
from leaderboard.records.errors import UserError, unknown
from leaderboard.records.params import TrackParams, load_params
from methods import Schedule
from methods.parts.training.train import PRECISIONS, train

ROOT = Path(__file__).parent.parent
SIDES = {"cuda": 8192, "cpu": 2048}  # of the matrices whose product measures the peak
PRODUCTS, SECONDS = 5, 1.0  # products timed at a time, and for how long this is repeated


def now(device: torch.device) -> float:
    """Return the seconds of a clock when `device` has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class TimedData(MethodData):
    """What a method sees, with a clock: `ends` holds the time at which `batches` was
    begun, and at which each epoch's last step was done.
    """

    ends: tuple[float, ...] = ()

    def batches(self, schedule: Schedule) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what MethodData yields, noting the time when the step of an epoch's
        last batch has returned.
        """
        device, an_epoch = self._learn.device, self.steps(dataclasses.replace(schedule, epochs=1))
        self.ends = (now(device),)
        for step, batch in enumerate(super().batches(schedule), start=1):
            yield batch
            if step % an_epoch == 0:
                self.ends += (now(device),)


def timed_data(params: TrackParams, model: str) -> TimedData:
    """Load the track's data and put it on its device as the train stage does."""
    require(params.device)
    device = seeded(params.device, params.seeds[0])
    with tempfile.TemporaryDirectory() as folder:
        source, transform = dataset(params.dataset).load(), transform_of(params, model)
        splits.save(splits.load(source, params, transform, Path(folder)), Path(folder))
        learn = splits.Learn.read(Path(folder), device)
    return TimedData(learn, params, model, params.seeds[0])


def peak(device: torch.device, precision: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product, the fastest of all timed, for a
    limit is what was reached once.
    """
    side = SIDES[device.type]
    left, right = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
    fastest, begun = float("inf"), now(device)
    while now(device) - begun < SECONDS:
        start = now(device)
        for _ in range(PRODUCTS):
            torch.mm(left, right)
        fastest = min(fastest, now(device) - start)
    return PRODUCTS * 2 * side**3 / fastest


def shortened(
    params: TrackParams, model: str, device: str | None, images: int | None
) -> TrackParams:
    """Return the track on the device and with the number of images asked for; raise
    UserError if that leaves no full batch.
    """
    if model not in params.models:
        raise unknown("model of this track", model, params.models)
    asked = {"device": device or params.device}
    if images is None:
        return params.model_copy(update=asked)
    if images < params.scratch_of(model).batch:
        raise UserError(
            f"--images {images} is less than a batch of the recipe: ask for "
            f"{params.scratch_of(model).batch} or more"
        )
    return params.model_copy(
        update={**asked, "first": images, "calibration": min(images, params.calibration)}
    )


def measure(params: TrackParams, model: str, epochs: int) -> None:
    """Train for `epochs` and print the speed of each, and their median without the
    first beside the peak.
    """
    seen = timed_data(params, model)
    schedule = dataclasses.replace(seen.scratch, epochs=epochs)
    network = seen.narrower(1.0)
    device, precision = next(network.parameters()).device, PRECISIONS[schedule.precision]
    images = seen.steps(schedule) // epochs * schedule.batch
    flops = 3 * 2 * seen.macs(network) * images
    before = peak(device, precision)
    train(network, seen, schedule)
    limit = max(before, peak(device, precision))
    seconds = [end - start for start, end in itertools.pairwise(seen.ends)]
    print(
        f"{described(device)}, torch {torch.__version__}, {schedule.precision}, {images} images "
        f"an epoch in batches of {schedule.batch}\n"
    )
    rows = [
        (epoch, took, images / took, flops / took / 1e12, 100 * flops / took / limit)
        for epoch, took in enumerate(seconds, start=1)
    ]
    print(
        tabulate(
            rows,
            headers=["epoch", "seconds", "images/s", "TFLOP/s", "% of the peak"],
            floatfmt=("", ".3f", ".0f", ".3f", ".2f"),
        ),
        "\n",
    )
    typical = statistics.median(seconds[1:])
    print(
        f"{model}: {typical:.3f} s an epoch after the first ({seconds[0]:.3f} s), "
        f"{images / typical:.0f} images/s"
    )
    print(
        f"{flops / typical / 1e12:.3f} TFLOP/s of a peak of {limit / 1e12:.3f}: "
        f"{100 * flops / typical / limit:.2f} % of the physical limit"
    )


def described(device: torch.device) -> str:
    """Return what `device` is."""
    return (
        processor("cuda")
        if device.type == "cuda"
        else f"{processor('cpu')}, {torch.get_num_threads()} thread"
    )


def main() -> None:
    """Train one model and print its speed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="resnet20", help="a model of the track, default %(default)s"
    )
    parser.add_argument(
        "--track", default="cifar10_full", help="a track of params.yaml, default %(default)s"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=3,
        help="how many to train, the first apart, default %(default)s",
    )
    parser.add_argument("--device", choices=list(SIDES), help="default: the track's")
    parser.add_argument("--images", type=int, help="only so many training images, to try it")
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("--epochs must be 2 or more: the first stands apart")
    try:
        track = load_params(ROOT / "params.yaml").track(arguments.track)
        measure(
            shortened(track, arguments.model, arguments.device, arguments.images),
            arguments.model,
            arguments.epochs,
        )
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
