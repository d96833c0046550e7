"""How fast test images are evaluated: an artefact the way
`harness.point.worker.evaluate_point` runs it, against the loop of timm's `validate.py`.

`python benchmarks/evaluation_speed.py cifar10_cpu-resnet20 --images 2000` takes a
minute. Models are given as TRACK-MODEL and must name weights. Ours: uint8
pixels normalised batch by batch, the exported program, arg max. timm's: a loader over
PIL images with the model's own transforms, the model in eval mode, cross-entropy, top-1
and top-5 accuracy; the loader in the same process, and with two workers (validate.py's
default is four). Both see the same images in batches of 256, with one thread for the
model. The two take turns, and a ratio is the median of timm's seconds over those of our
run just before, so that more than 1 means ours is faster. CPU seconds are those of this
process, without the loader's workers: other load on the machine moves them less.
"""

from __future__ import annotations

import os

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import timm
import torch
from PIL import Image
from tabulate import tabulate
from timm.data import create_loader, resolve_data_config
from timm.utils import AverageMeter, accuracy
from torch import Tensor, nn
from torch.utils.data import Dataset

from harness.data import dataset, splits
from harness.data.transform import transform_of
from harness.latency.runtimes import processor
from harness.models import weights
from harness.point import store
from harness.point.batch_independence import BATCH
from harness.point.device import seeded
from leaderboard.records.errors import UserError, unknown
from leaderboard.records.params import ModelParams, load_params

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
WORKERS = (0, 2)  # processes that load images for timm
TOLERANCE = 0.05  # points by which the two accuracies may differ: BatchNorm is folded in ours


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images in memory, handed out as torchvision's datasets do: a PIL image through
    `transform`, which timm sets.
    """

    def __init__(self, test: splits.TestSplit) -> None:
        self.images, self.labels = (
            test.pixels.permute(0, 2, 3, 1).contiguous().numpy(),
            test.labels.tolist(),
        )
        self.transform: Callable[[Image.Image], Tensor] | None = None

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        assert self.transform is not None
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Run:
    """One pass over the test images: wall seconds, CPU seconds of this process, top-1
    accuracy in percent.
    """

    seconds: float
    cpu: float
    accuracy: float


@torch.inference_mode()
def run_ours(module: nn.Module, test: splits.TestSplit) -> Run:
    """Evaluate as `evaluate_point` does."""
    start, cpu = time.perf_counter(), time.process_time()
    logits = torch.cat([module(batch) for batch in test.batches(BATCH, CPU)])
    if not torch.isfinite(logits).all():
        raise UserError(
            "the artefact returns NaN or infinity on test images: its weights are wrong"
        )
    correct = int((logits.argmax(1) == test.labels).sum())
    return Run(
        time.perf_counter() - start, time.process_time() - cpu, 100 * correct / len(test.labels)
    )


@torch.inference_mode()
def run_timm(model: nn.Module, test: splits.TestSplit, workers: int) -> Run:
    """Evaluate as timm's `validate.py` does; making loader and dataset is not timed,
    starting the loader's workers is.
    """
    unit = 255  # pixels are uint8, and timm's mean and std are of pixels in [0, 1]
    moments = {
        "mean": (test.mean / unit).flatten().tolist(),
        "std": (test.std / unit).flatten().tolist(),
    }
    config = resolve_data_config(
        {"input_size": tuple(test.pixels.shape[1:]), "crop_pct": 1.0, **moments}, model=model
    )
    loader = create_loader(
        PilImages(test), batch_size=BATCH, num_workers=workers, device=CPU, **config
    )  # type: ignore[arg-type]  # any dataset with a transform
    loss_of, losses, top1, top5 = (
        nn.CrossEntropyLoss(),
        AverageMeter(),
        AverageMeter(),
        AverageMeter(),
    )
    start, cpu = time.perf_counter(), time.process_time()
    for images, labels in loader:
        logits = model(images)
        losses.update(loss_of(logits, labels).item(), len(labels))
        first, fifth = accuracy(logits, labels, topk=(1, 5))
        top1.update(first.item(), len(labels))
        top5.update(fifth.item(), len(labels))
    return Run(time.perf_counter() - start, time.process_time() - cpu, top1.avg)


@cache
def loaded(track: str) -> splits.TrackData:
    """Return the track's data, read once for all its models."""
    about = load_params(ROOT / "params.yaml").track(track)
    transform = transform_of(about, next(iter(about.models)))
    return splits.load(dataset(about.dataset).load(), about, transform, Path())


def artefact_of(params: ModelParams, source: splits.TrackData, classes: int) -> store.Artefact:
    """Export the reference model, write it, and read it back."""
    model = weights.load(params, source.test.images.shape[1], classes).model
    images = splits.normalised(source.calibration[:2], source.mean, source.std)
    with tempfile.TemporaryDirectory() as folder:
        store.write(Path(folder), store.export(model.eval(), images), {})
        return store.read(Path(folder))


def compare(name: str, images: int, repetitions: int) -> list[tuple[str | float, ...]]:
    """Return a row of the table for our way and one for each number of timm's
    workers.
    """
    track, _, model_name = name.partition("-")
    params = load_params(ROOT / "params.yaml").track(track)
    if model_name not in params.models:
        raise unknown(f"model of track '{track}'", model_name, params.models)
    source = loaded(track)
    test = splits.TestSplit(
        source.test.images[:images], source.test.labels[:images], source.mean, source.std
    )
    dense = weights.load(params.models[model_name], test.pixels.shape[1], source.classes)
    model = dense.model.eval()
    module = artefact_of(params.models[model_name], source, source.classes).on(CPU)
    few = splits.TestSplit(test.pixels[:BATCH], test.labels[:BATCH], test.mean, test.std)
    run_ours(module, few)  # the first batch chooses kernels and allocates
    run_timm(model, few, 0)
    pairs = [
        [(run_ours(module, test), run_timm(model, test, workers)) for workers in WORKERS]
        for _ in range(repetitions)
    ]
    return rows(name, len(test.labels), pairs)


def rows(
    name: str, images: int, pairs: list[list[tuple[Run, Run]]]
) -> list[tuple[str | float, ...]]:
    """Return the table's rows from the (ours, timm's) of each repetition and number of
    workers; raise UserError if the accuracies differ.
    """
    ours = [run for repetition in pairs for run, _ in repetition]
    seconds = statistics.median(run.seconds for run in ours)
    table: list[tuple[str | float, ...]] = [
        (name, "ours", "", seconds, images / seconds, ours[0].accuracy, 1.0, "", 1.0)
    ]
    for workers, both in zip(WORKERS, zip(*pairs, strict=True), strict=True):
        theirs = [run for _, run in both]
        if abs(theirs[0].accuracy - ours[0].accuracy) > TOLERANCE:
            raise UserError(
                f"{name}: accuracy is {ours[0].accuracy:.2f} % in ours and "
                f"{theirs[0].accuracy:.2f} % in timm's loop: they evaluate different models"
            )
        ratios = [b.seconds / a.seconds for a, b in both]
        seconds = statistics.median(run.seconds for run in theirs)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        busy = statistics.median(b.cpu / a.cpu for a, b in both)
        table.append(
            (
                name,
                "timm",
                workers,
                seconds,
                images / seconds,
                theirs[0].accuracy,
                statistics.median(ratios),
                spread,
                busy,
            )
        )
    return table


def main() -> None:
    """Print seconds, accuracy and ratio of both ways for every model asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models",
        nargs="*",
        default=["cifar10_cpu-resnet20", "cifar10_cpu-resnet56"],
        metavar="TRACK-MODEL",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--images", type=int, default=10_000, help="only so many test images, default %(default)s"
    )
    parser.add_argument(
        "--repetitions",
        type=int,
        default=3,
        help="of each way and number of workers, default %(default)s",
    )
    arguments = parser.parse_args()
    if arguments.images < 1 or arguments.repetitions < 1:
        parser.error("--images and --repetitions must be 1 or more")
    seeded("cpu", 0)  # and one thread
    try:
        table = [
            row
            for name in arguments.models
            for row in compare(name, arguments.images, arguments.repetitions)
        ]
    except UserError as error:
        sys.exit(f"error: {error}")
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    print(
        f"{processor('cpu')}, {cores} cores, torch {torch.__version__} with {threads} thread, "
        f"timm {timm.__version__}\n"
    )
    headers = [
        "model",
        "loop",
        "workers",
        "seconds",
        "images/s",
        "accuracy %",
        "seconds / ours",
        "lowest to highest",
        "CPU s / ours",
    ]
    print(
        tabulate(
            table, headers=headers, floatfmt=("", "", "", ".2f", ".0f", ".2f", ".2f", "", ".2f")
        )
    )


if __name__ == "__main__":
    main()
