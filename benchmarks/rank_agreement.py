"""Whether two independent measuring runs rank a track's points alike: Kendall's tau of
their realised speed-ups.

`python benchmarks/rank_agreement.py digits cpu` measures twice, in two processes one
after the other, without touching the results, and prints tau over the points outside
both runs' noise floors, for each batch size, all models together and one by one.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scipy.stats import kendalltau
from tabulate import tabulate

from harness.run.paths import Paths
from leaderboard.records.latency import LatencyRun, read_latency
from leaderboard.records.params import load_params
from leaderboard.records.statistics import median

Speeds = dict[tuple[str, str, int], float]


def measured(track: str, hardware: str) -> LatencyRun:
    """Measure in a process of its own, in a copy that shares the artefacts, and read
    the run.
    """
    params = load_params(Path("params.yaml"))
    with tempfile.TemporaryDirectory() as temporary:
        copy, here = Paths(Path(temporary), params.version), Paths(Path.cwd(), params.version)
        shutil.copy("params.yaml", copy.root)
        (copy.root / "artefacts").symlink_to(here.root / "artefacts")
        shutil.copytree(here.records(track) / "points", copy.records(track) / "points")
        subprocess.run(
            [
                sys.executable,
                "-m",
                "shrinkmark",
                "measure",
                track,
                hardware,
                "--params",
                str(copy.root / "params.yaml"),
            ],
            check=True,
        )
        files = list(copy.latency(track, hardware).glob("*.json"))
        if not files:
            sys.exit(f"error: this machine does not serve the profile {hardware}")
        return read_latency(files[0], {})


def outside(run: LatencyRun) -> Speeds:
    """Return the speed-ups of a run that its noise floor does not cover."""
    speeds = {key: median(rounds.speedups).value for key, rounds in run.rounds.items()}
    return {key: speed for key, speed in speeds.items() if abs(speed - 1) > run.floors[key[2]]}


def main() -> None:
    """Print tau for each batch size and model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("track")
    parser.add_argument("hardware")
    arguments = parser.parse_args()
    runs = [measured(arguments.track, arguments.hardware) for _ in range(2)]
    first, second = (outside(run) for run in runs)
    rows = []
    for batch in runs[0].floors:
        keys = sorted(key for key in first.keys() & second.keys() if key[2] == batch)
        floors = ", ".join(f"{100 * run.floors[batch]:.1f} %" for run in runs)
        for model in ("", *load_params(Path("params.yaml")).track(arguments.track).models):
            chosen = [key for key in keys if key[1].startswith(f"{model}_" if model else "")]
            if len(chosen) > 1:
                tau = kendalltau(
                    [first[key] for key in chosen], [second[key] for key in chosen]
                ).statistic
                rows.append([batch, model or "all", len(chosen), f"{tau:.3f}", floors])
    print(
        tabulate(
            rows, headers=["batch", "model", "points outside both floors", "Kendall tau", "floors"]
        )
    )


if __name__ == "__main__":
    main()
