"""How time and memory grow with the number of images: made-up photographs in class
folders are listed, hashed, prepared and evaluated, each number in a process of its own.

Memory is the most that a process holds beside what it maps from files (RssAnon), asked
ten times a second.

    python -m benchmarks.scale --images 1000 --images 20000
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import numpy as np
import timm
import torch
from PIL import Image
from tabulate import tabulate

from harness.data import dataset, splits
from harness.point import store
from harness.point.batch_independence import CPU, evaluated
from harness.run.prepare import prepare
from leaderboard.records.params import ModelParams, TrackParams, load_params

ROOT = Path(__file__).parents[1]
SIDE, CLASSES = 96, 10  # of the images, which the model takes at 64
HEADERS = ("images", "list and hash, s", "again, s", "prepare, s", "evaluate, s", "MiB")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each number of images."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--images", type=int, action="append", required=True)
    asked = parser.parse_args(arguments)
    rows = []
    for count in asked.images:
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder) / "images", count)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(measured, [Path(folder), count]))
    print(tabulate(rows, headers=HEADERS, floatfmt=".1f", intfmt=","))


def draw(folder: Path, count: int) -> None:
    """Write `count` photographs of noise for test, and a few to train."""
    generator = np.random.default_rng(0)
    for split, images in (("train", 100), ("val", count)):
        for number in range(images):
            file = folder / split / str(number % CLASSES) / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file)


def measured(folder: Path, count: int) -> tuple[float, ...]:
    """Return a row of the table."""
    torch.set_num_threads(1)
    most, done = [0.0], threading.Event()
    threading.Thread(target=watch, args=[most, done], daemon=True).start()
    track = track_of(folder / "images")
    model = timm.create_model("resnet10t", num_classes=CLASSES).eval()
    store.write(folder, store.export(model, torch.zeros(2, 3, 64, 64)), {})
    artefact = store.read(folder)
    most[0] = 0.0  # what torch and the model need is no matter of images
    begin = anonymous()
    seconds = [timed(lambda: dataset(track.dataset, track.data).load()) for _ in range(2)]
    seconds.append(timed(lambda: prepare(track, folder / "data")))
    test = splits.TestSplit.read(splits.folder_of(folder / "data", track, "resnet"))
    seconds.append(timed(lambda: evaluated(artefact, test, CPU)))
    done.set()
    return count, *seconds, most[0] - begin


def track_of(images: Path) -> TrackParams:
    """Return a track of a folder of images with one small model."""
    digits = load_params(ROOT / "params.yaml").track("digits")
    own = {
        "dataset": "image_folder",
        "data": {"folder": str(images)},
        "calibration": 64,
        "models": {"resnet": ModelParams(timm="resnet10t", image_size=64)},
        "normalise": None,
        "interpolation": None,
        "crop": None,
    }
    return digits.model_copy(update=own)


def timed(work: object) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start


def watch(most: list[float], done: threading.Event) -> None:
    """Keep the most memory that was seen."""
    while not done.wait(0.1):
        most[0] = max(most[0], anonymous())


def anonymous() -> float:
    """Return the MiB of this process's memory that are no part of a file."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
