"""A simulation of 10,000 points on clusters larger than we have: makespan, how good
longest first is, and where the driver becomes the limit.

Run it as `python benchmarks/ray_scale.py FILE` with what `ray_overhead.py --into FILE`
measured here. A point's cost is drawn from the committed costs of a track; to it comes
the overhead measured on Ray. A worker takes the next point as soon as it is free. The
driver puts back one point after the other. Nothing fails, the network and the remote
keep up: it is a calculation, not a run.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from pathlib import Path

import numpy as np
from tabulate import tabulate

from harness.cluster.sweep import WINDOW
from harness.run.costs import seconds_of
from harness.run.paths import Paths
from leaderboard.records.params import load_params

ROOT = Path(__file__).parent.parent
POINTS, WORKERS, SEED = 10_000, (10, 30, 100, 300, 1000), 0


def costs(track: str) -> np.ndarray:
    """Return the seconds that each measured point of `track` took, by the committed
    costs.
    """
    paths = Paths(ROOT, load_params(ROOT / "params.yaml").version)
    return np.array(list(seconds_of(paths, [track]).values()))


def ends(seconds: np.ndarray, workers: int) -> np.ndarray:
    """Return when each point ends if the workers take them in this order."""
    free = [0.0] * workers
    found = np.empty(len(seconds))
    for index, cost in enumerate(seconds):
        found[index] = heapq.heappushpop(free, free[0] + cost) + cost
    return np.sort(found)


def put_back(done: np.ndarray, seconds: float) -> float:
    """Return when a driver that needs `seconds` for each point has put back the
    last.
    """
    now = 0.0
    for end in done:
        now = max(now, end) + seconds
    return now


def row(drawn: np.ndarray, workers: int, driver: float) -> list[float]:
    """Return workers; hours: makespan longest first, in any order, no schedule can be
    shorter; excess over that, bound of it; ends a second, driver's load.
    """
    longest, shuffled = np.sort(drawn)[::-1], np.random.default_rng(SEED).permutation(drawn)
    done = ends(longest, workers)
    least = max(drawn.sum() / workers, drawn.max())
    makespan, other = put_back(done, driver), put_back(ends(shuffled, workers), driver)
    bound = 100 * (1 / 3 - 1 / (3 * workers))  # Graham 1969
    rate = len(drawn) / done[-1]
    return [
        workers,
        makespan / 3600,
        other / 3600,
        least / 3600,
        100 * (makespan / least - 1),
        bound,
        rate,
        100 * rate * driver,
    ]


def main() -> None:
    """Print a table for each track, and where the driver is the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="what ray_overhead.py wrote")
    parser.add_argument("tracks", nargs="*", default=["digits"])
    arguments = parser.parse_args()
    measured = json.loads(arguments.file.read_text())
    on_ray = [found for found in measured["rows"] if found["where"] == "Ray"]
    overhead = max(found["point"] - found["work"] for found in on_ray)
    each = {
        size: measured["held"]["hand_over"] + measured[size]["put_back"]
        for size in ("small", "large")
    }
    print(
        f"SIMULATED: {POINTS:,} points, each with {overhead:.2f} s of overhead and "
        f"{1000 * each['small']:.2f} ms of the driver (both measured)\n"
    )
    for track in arguments.tracks:
        found = costs(track)
        if not len(found):
            sys.exit(f"error: track '{track}' has no measured points: run it first")
        drawn = np.random.default_rng(SEED).choice(found, POINTS) + overhead
        print(
            f"{track}: {len(found)} measured points, mean {found.mean():.1f} s, longest "
            f"{found.max():.1f} s"
        )
        names = [
            "workers",
            "hours",
            "any order",
            "at least",
            "excess %",
            "bound %",
            "ends/s",
            "driver %",
        ]
        print(
            tabulate(
                [row(drawn, workers, each["small"]) for workers in WORKERS],
                headers=names,
                floatfmt=".2f",
            )
        )
        for size, seconds in each.items():
            print(
                f"the driver is busy all the time from {drawn.mean() / seconds:,.0f} workers on "
                f"if an artefact has {measured[size]['bytes'] / 2**20:.1f} MiB"
            )
        print()
    kib, look = measured["held"]["bytes"] / 1024, 1000 * measured["held"]["look"]
    print(
        f"driver memory: {kib:.1f} KiB a point handed over (measured), {kib * WINDOW / 1024:.0f} "
        f"MiB for the {WINDOW:,} handed over at a time,"
    )
    print(
        f"{kib * POINTS / 1024:.0f} MiB if it were all {POINTS:,}; it looks at them once a "
        f"second, which takes {look:.0f} ms (measured)"
    )


if __name__ == "__main__":
    main()
