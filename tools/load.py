"""How time and memory grow with the matrix: generated methods on five tiny models, each
stage timed, in a folder of its own.

For each size: seconds of training, of the sweep over all points, of collecting them
method by method with nothing left to run, and of the leaderboard; the seconds a point
takes, and the most memory that the command itself and all of its processes held. Flat
seconds a point and flat memory are what to look for.

Example: python -m tools.load --methods 25 --methods 100 --methods 200
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
import yaml
from tabulate import tabulate

from benchmarks.testbed.tiny_project import PARAMS, TRACK

ROOT = Path(__file__).parent.parent
WIDTHS = (8, 10, 12, 14, 16)  # of the five models
HEADERS = (
    "methods",
    "points",
    "train s",
    "sweep s",
    "s a point",
    "collect s",
    "s a method",
    "leaderboard s",
    "command MiB",
    "all processes MiB",
)


@dataclass(frozen=True)
class Timed:
    """The seconds of a command, and the most MiB that it, and that it with all of its
    processes, held.
    """

    seconds: float
    own: float
    all: float


def checkout(folder: Path, methods: int) -> None:
    """Copy the code into `folder` with so many generated methods, each magnitude
    pruning under another name, and five models.
    """
    for name in ("harness", "leaderboard", "methods"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "shrinkmark.py", folder)
    source = (ROOT / "methods" / "magnitude.py").read_text()
    names = [f"generated_{number:04}" for number in range(methods)]
    for name in names:
        (folder / "methods" / f"{name}.py").write_text(source)
    (folder / "params.yaml").write_text(yaml.safe_dump(experiment(names), sort_keys=False))


def experiment(names: list[str]) -> dict[str, Any]:
    """Return the params: dense and the methods `names` at one setting on five models,
    one seed, nothing timed.
    """
    mixer = TRACK["models"]["mixer"]
    models = {
        f"mixer{width}": mixer | {"args": mixer["args"] | {"embed_dim": width}} for width in WIDTHS
    }
    plans = {name: {"settings": [{"sparsity": 0.5}]} for name in names}
    return PARAMS | {
        "tracks": {"digits": TRACK | {"models": models}},
        "methods": {"dense": {"settings": [{}]}, **plans},
        "chains": {},
        "hardware": {},
    }


def run(folder: Path, *arguments: str) -> Timed:
    """Run a command in `folder` and watch it; end with its output if it fails."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    start, own, together = time.monotonic(), 0.0, 0.0
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "shrinkmark", *arguments],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
        while process.poll() is None:
            held = _mib(process.pid)
            own, together = max(own, held[0]), max(together, sum(held))
            time.sleep(0.2)
        output.seek(0)
        if process.returncode:
            sys.exit(
                f"error: {' '.join(arguments)} ended with {process.returncode}: "
                f"{output.read()[-2000:]}"
            )
    return Timed(time.monotonic() - start, own, together)


def _mib(pid: int) -> list[float]:
    """Return the resident MiB of a process and of each below it; one that has just
    ended counts nothing.
    """
    try:
        process = psutil.Process(pid)
        return [
            one.memory_info().rss / 2**20 for one in [process, *process.children(recursive=True)]
        ]
    except psutil.NoSuchProcess:
        return [0.0]


def row(methods: int) -> list[float]:
    """Return the line of the table for so many methods."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkout(folder, methods)
        points = (methods + 1) * len(WIDTHS)
        train, sweep = run(folder, "train", "digits"), run(folder, "sweep", "digits")
        collect = run(folder, "run", "digits")
        board = run(folder, "tables", "--no-digest")
        peak = max((train, sweep, collect, board), key=lambda timed: timed.all)
        times = [
            train.seconds,
            sweep.seconds,
            sweep.seconds / points,
            collect.seconds,
            collect.seconds / (methods + 1),
            board.seconds,
        ]
        return [methods, points, *times, sweep.own, peak.all]


def main(
    methods: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="how many methods (may be given again); by default 25, 50, 100, 200"
        ),
    ] = None,
) -> None:
    """Print the table of time and memory by the number of methods, in GitHub's
    Markdown.

    Example: python -m tools.load --methods 25 --methods 200
    """
    rows = [row(count) for count in methods or (25, 50, 100, 200)]
    print(
        tabulate(
            rows,
            headers=HEADERS,
            tablefmt="github",
            floatfmt=("d", "d", ".1f", ".1f", ".2f", ".1f", ".2f", ".1f", ".0f", ".0f"),
        )
    )


if __name__ == "__main__":
    typer.run(main)
