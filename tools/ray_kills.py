"""Sweep a real track on a Ray cluster of several node processes, kill -9 a node and the
driver on the way, and compare with a local sweep byte for byte.

Trains the dense models once, sweeps the same points in the local pool and on two Ray
nodes. A node is killed after a quarter of the points and another added, the driver is
killed after half and started again. Records, tables, predictions, weights and programs
must then be those of the
local sweep, and no finished point may have been run again. Needs `pip install -e
.[ray]`.

Example: python -m tools.ray_kills --method magnitude --method rtn --method svd --method
slim
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
import yaml

from benchmarks.testbed.ray_nodes import ROOT, Cluster, commit, driver, environment, wait_until
from harness.run.paths import Paths
from harness.run.points import expand
from leaderboard.records.params import load_params
from tools.kill_anywhere import finished, outcome, unchanged

LIMIT = 4 * 3600.0  # seconds for a sweep to get to its moment, or to end


def experiment(folder: Path, methods: list[str], checkout: Path) -> None:
    """Write the experiment of this repository cut down to `methods` (none: all) on
    digits into `folder`, and train what was not trained here.
    """
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    plans = {
        name: plan
        for name, plan in content["methods"].items()
        if not methods or name in {"dense", *methods}
    }
    chains = {
        name: plan for name, plan in content["chains"].items() if not methods or name in methods
    }
    # that a machine is busy is nothing to fail of
    track = content["tracks"]["digits"] | {
        "seconds": LIMIT,
        "methods": {
            name: own
            for name, own in content["tracks"]["digits"]["methods"].items()
            if name in plans | chains
        },
    }
    cut = content | {
        "tracks": content["tracks"] | {"digits": track},
        "methods": plans,
        "chains": chains,
    }
    folder.mkdir()
    here, there = Paths(ROOT, content["version"]), Paths(folder, content["version"])
    if here.dense("digits").exists():
        shutil.copytree(here.dense("digits"), there.dense("digits"))
        there.records("digits").mkdir(parents=True)
        shutil.copy(here.records("digits") / "track.json", there.records("digits"))
    (folder / "params.yaml").write_text(yaml.safe_dump(cut, sort_keys=False))
    command = [
        sys.executable,
        "-m",
        "shrinkmark",
        "train",
        "digits",
        "--params",
        str(folder / "params.yaml"),
    ]
    subprocess.run(command, cwd=checkout, env=environment(checkout), check=True)


def undisturbed(checkout: Path, folder: Path, address: str | None) -> str:
    """Sweep to the end and return what the command printed; raise AssertionError if it
    fails or runs a finished point again.
    """
    before = finished(folder)
    process = driver(checkout, folder, address)
    said, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, error[-2000:]
    unchanged(folder, before)
    return said.strip()


def disturbed(cluster: Cluster, folder: Path, points: int) -> Iterator[str]:
    """Sweep the `points` points of the experiment in `folder`, killing a node and the
    driver on the way; yield what happened.
    """
    first, second, log = cluster.add("first"), cluster.add("second"), folder / "driver.log"
    with log.open("w") as stderr:
        process = driver(cluster.checkout, folder, cluster.address, stderr=stderr)
    _until(process, log, lambda: len(finished(folder)) >= points // 4 and first.points)
    first.crash()
    yield f"killed the first of two nodes: {len(finished(folder))} of {points} points finished"
    wait_until(lambda: not first.points, 120)
    before = finished(folder)
    # the node that is left goes on
    _until(process, log, lambda: len(finished(folder)) > len(before))
    cluster.add("third")
    _until(process, log, lambda: len(finished(folder)) >= points // 2)
    process.kill()
    process.communicate()
    yield f"killed the driver: {len(finished(folder))} of {points} points finished"
    wait_until(lambda: not second.points, 120)
    yield undisturbed(cluster.checkout, folder, cluster.address)


def _until(process: subprocess.Popen[str], log: Path, true: Callable[[], object]) -> None:
    wait_until(lambda: process.poll() is not None or true(), LIMIT)
    assert process.poll() is None, f"the driver has ended by itself: {log.read_text()[-2000:]}"


def differing(found: Path, local: Path) -> list[str]:
    """Return the names of the files that two runs of one experiment do not have in
    common, byte for byte.
    """
    ours, theirs = outcome(found), outcome(local)
    return sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )


def main(
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="only this method or chain (may be given again), and dense; without one, all"
        ),
    ] = None,
) -> None:
    """Sweep digits on a cluster that loses a node and its driver; exit 1 if anything
    came out otherwise than in a local sweep.

    Example: python -m tools.ray_kills --method magnitude --method rtn --method svd
    --method slim
    """
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        trained, local, there = (Path(temporary) / name for name in ("trained", "local", "cluster"))
        checkout = commit(Path(temporary) / "checkout")
        experiment(trained, method or [], checkout)
        params = load_params(trained / "params.yaml")
        points = sum(len(expand(params, "digits", name)) for name in params.plans)
        for folder in (local, there):
            shutil.copytree(trained, folder)
        print(
            f"{points} points of {', '.join(params.plans)} on "
            f"{', '.join(params.track('digits').models)}",
            flush=True,
        )
        with Cluster(checkout) as cluster:
            for line in chain(
                [undisturbed(checkout, local, None)], disturbed(cluster, there, points)
            ):
                print(f"{datetime.now():%H:%M:%S} {line}", flush=True)
        other = differing(there, local)
        if other:
            sys.exit(f"error: differs from the local sweep: {', '.join(other)}")
        print(f"{len(outcome(local))} files as in the local sweep, no finished point run again")


if __name__ == "__main__":
    typer.run(main)
