"""Where the time of a track's pipeline goes: does what `make repro` does in a fresh
clone of HEAD and prints the split.

Run it as `make benchmark`. What points took is read from the costs of the machine.
Overhead is all wall time that is neither a method's own work, nor evaluation of the
artefact read back, nor latency timing: exporting and writing, starting stages and
workers, DVC, tables, and idle cores. `--keep FOLDER` keeps the clone, to compare two
runs byte by byte.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import chain
from pathlib import Path

from tabulate import tabulate

from harness.latency.machine import fingerprint
from harness.run.costs import this_machine
from harness.run.paths import Paths
from leaderboard.records.params import load_params
from leaderboard.records.results import read_record
from leaderboard.records.schema import CostsFile, Spent

ROOT = Path(__file__).parent.parent


def stage_seconds(folder: Path, track: str) -> dict[str, float]:
    """Do in `folder` what `make repro` does and return the wall seconds of each command
    and, of `dvc repro`, of each stage.
    """
    seconds: dict[str, float] = {}
    own = folder / "tracks" / track / "dvc.yaml"
    commands = {
        "dvc start": ["dvc", "repro", *([str(own)] if own.exists() else [])],
        "show": [sys.executable, "-m", "shrinkmark", "show", "--track", track],
        "dvc repro, again": ["dvc", "repro", *([str(own)] if own.exists() else [])],
    }
    for name, command in commands.items():
        seconds.update(_seconds_of(command, folder, name))
    return seconds


def _seconds_of(command: list[str], folder: Path, name: str) -> dict[str, float]:
    seconds, start = {}, time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Running stage '"):
            now = time.perf_counter()
            seconds[name], name, start = now - start, line.split("'")[1], now
    seconds[name] = time.perf_counter() - start
    if process.wait() != 0:
        sys.exit(f"error: {' '.join(command)} failed, see above")
    return seconds


def costs_of(paths: Paths, track: str) -> CostsFile:
    """Return what this machine noted of the track."""
    return read_record(paths.costs(track) / f"{this_machine().fingerprint}.json", CostsFile)


def kinds(spent: Spent) -> dict[str, float]:
    """Return the seconds of a point by what they were spent on."""
    return {"compress": spent.seconds, "export": spent.export, "evaluate": spent.evaluate}


def split(folder: Path, track: str) -> tuple[Counter[str], int]:
    """Return the seconds of work by kind, spread over the workers, and the number of
    points run.
    """
    params = load_params(folder / "params.yaml")
    paths, work, points = Paths(folder, params.version), Counter[str](), 0
    costs = costs_of(paths, track)
    work["train dense"] = (
        sum(trained.seconds for trained in costs.dense.values()) / params.run.workers
    )
    for spent in chain.from_iterable(of_method.values() for of_method in costs.points.values()):
        points += 1
        work.update({kind: seconds / params.run.workers for kind, seconds in kinds(spent).items()})
    for hardware, profile in params.hardware.items():
        file = paths.latency(track, hardware) / f"{fingerprint(profile)['fingerprint']}.json"
        work["latency"] += sum(
            run["extra_info"]["seconds"] for run in json.loads(file.read_text())["benchmarks"]
        )
    return work, points


def by_method(folder: Path, track: str) -> list[tuple[str, int, float]]:
    """Return each method with its measured points and their seconds (compressing,
    exporting, evaluating) over the workers, the longest first.
    """
    params = load_params(folder / "params.yaml")
    costs = costs_of(Paths(folder, params.version), track)
    seconds = {
        method: [spent.whole for spent in costs.points.get(method, {}).values()]
        for method in params.plans
    }
    rows = [
        (method, len(found), sum(found) / params.run.workers) for method, found in seconds.items()
    ]
    return sorted(rows, key=lambda row: -row[2])


def main() -> None:
    """Print the seconds of every stage, the split by kind, and the share of
    overhead.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="clone into this folder and leave it there")
    parser.add_argument("track", nargs="?", default="digits")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        stages = stage_seconds(folder, arguments.track)
        work, points = split(folder, arguments.track)
        methods = by_method(folder, arguments.track)
    total = sum(stages.values())
    print(tabulate(stages.items(), headers=["command or stage", "seconds"], floatfmt=".1f"), "\n")
    print(
        tabulate(methods, headers=["method", "points", "its seconds / workers"], floatfmt=".1f"),
        "\n",
    )
    useful = sum(seconds for kind, seconds in work.items() if kind != "export")
    rows = [(kind, seconds, 100 * seconds / total) for kind, seconds in work.items()]
    rows += [
        ("everything else", total - sum(work.values()), 100 * (total - sum(work.values())) / total),
        ("total", total, 100.0),
    ]
    print(
        tabulate(
            rows,
            headers=["work, spread over the workers", "seconds", "% of the run"],
            floatfmt=".1f",
        ),
        "\n",
    )
    print(
        f"{points} points, overhead (all but train, compress, evaluate and latency): "
        f"{100 * (1 - useful / total):.1f} %"
    )


if __name__ == "__main__":
    main()
