"""What a point costs on a Ray cluster beyond what it costs in the local pool, and how
many points a driver can hold and put back.

Run it as `python -m benchmarks.ray_overhead --into FILE` (needs `pip install -e
.[ray]`). Sweeps a few and many points of one method on one small model, each in a copy
of its own, with one and two workers, in the local pool and on Ray nodes of one
processor each; the difference between many and few is what a point takes, the rest is
what starting takes. `benchmarks/ray_scale.py` reads FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from tabulate import tabulate

from benchmarks.testbed.ray_nodes import Cluster, commit, environment
from harness.cluster.remote import Remote, receive, send
from harness.cluster.sweep import WINDOW, on_node
from harness.run.costs import seconds_of
from harness.run.paths import ROOT, Paths
from harness.run.points import expand
from harness.run.train import train_track
from leaderboard.records.params import Params, load_params

FEW, MANY, HELD, REPEATS = 4, 28, WINDOW, 100
LARGE = 100 * 2**20  # bytes of an artefact as models for ImageNet have them


def trained(folder: Path) -> tuple[Params, Paths]:
    """Write and train an experiment of `MANY` points of a fast method on one model of
    digits.
    """
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    track = content["tracks"]["digits"]
    track |= {"models": {"mobilenet": track["models"]["mobilenet"]}, "methods": {}}
    track["scratch"]["epochs"] = 1
    methods = {
        "magnitude": {
            "settings": [{"sparsity": round(0.03 * step, 2)} for step in range(1, MANY + 1)]
        }
    }
    folder.mkdir()
    (folder / "params.yaml").write_text(
        yaml.safe_dump(content | {"tracks": {"digits": track}, "methods": methods, "chains": {}})
    )
    params = load_params(folder / "params.yaml")
    paths = Paths(folder, params.version)
    train_track(params, paths, "digits")
    return params, paths


def swept(
    source: Path, target: Path, points: int, workers: int, checkout: Path, *options: str
) -> tuple[float, float]:
    """Sweep the first `points` points in a copy of `source`; return the wall seconds,
    and the seconds of work that the costs name.
    """
    shutil.copytree(source, target)
    content = yaml.safe_load((source / "params.yaml").read_text())
    content["methods"]["magnitude"]["settings"] = content["methods"]["magnitude"]["settings"][
        :points
    ]
    content["run"]["workers"] = workers
    (target / "params.yaml").write_text(yaml.safe_dump(content))
    command = [
        sys.executable,
        "-m",
        "shrinkmark",
        "sweep",
        "digits",
        "--params",
        str(target / "params.yaml"),
        *options,
    ]
    start = time.perf_counter()
    subprocess.run(
        command, cwd=checkout, env=environment(checkout), check=True, capture_output=True
    )
    wall = time.perf_counter() - start
    return wall, sum(seconds_of(Paths(target, content["version"]), ["digits"]).values())


def measured(
    where: str, workers: int, sweep: Callable[[int], tuple[float, float]]
) -> dict[str, Any]:
    """Return what a point takes and what starting takes, from a sweep of few and one of
    many points.
    """
    (few, _), (many, work) = sweep(FEW), sweep(MANY)
    point = (many - few) * workers / (MANY - FEW)
    row = {
        "where": where,
        "workers": workers,
        "start": few - FEW * point / workers,
        "point": point,
        "work": work / MANY,
        "per_minute": 60 * workers / point,
    }
    print(row, flush=True)
    return row


def rows(source: Path, checkout: Path, scratch: Path) -> list[dict[str, Any]]:
    """Sweep in the local pool and on Ray nodes, with one worker and two."""
    found = []
    for workers in (1, 2):

        def local(points: int, workers: int = workers) -> tuple[float, float]:
            return swept(source, scratch / f"local-{workers}-{points}", points, workers, checkout)

        found.append(measured("local pool", workers, local))
        with Cluster(checkout) as cluster:
            for name in range(workers):
                cluster.add(f"node{name}")

            def on_ray(
                points: int, workers: int = workers, address: str = cluster.address
            ) -> tuple[float, float]:
                options = [
                    "--address",
                    address,
                    "--remote",
                    str(scratch / f"shared-{workers}-{points}"),
                ]
                return swept(
                    source, scratch / f"ray-{workers}-{points}", points, workers, checkout, *options
                )

            on_ray(1)  # a node imports torch and fetches its inputs once
            found.append(measured("Ray", workers, on_ray))
    return found


def held(params: Params) -> dict[str, float]:
    """Return seconds and bytes of memory that the driver spends on a point handed over,
    and seconds on a look at all of them.
    """
    (point, *_) = expand(params, "digits", "magnitude")
    ray.init(
        "local",
        num_cpus=1,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    shared, task, before = ray.put(params), ray.remote(on_node), psutil.Process().memory_info().rss
    start = time.perf_counter()
    # no node is that large: they wait
    points = [
        task.options(num_cpus=2, max_retries=0).remote(shared, point, "x") for _ in range(HELD)
    ]
    handed = time.perf_counter()
    ray.wait(points, num_returns=len(points), timeout=0)
    looked = time.perf_counter()
    grown = psutil.Process().memory_info().rss - before
    ray.shutdown()
    return {"hand_over": (handed - start) / HELD, "look": looked - handed, "bytes": grown / HELD}


def transfer(remote: Remote, folder: Path, repeats: int) -> dict[str, float]:
    """Return the bytes of the files in `folder`, the seconds in which a node sends
    them, and those in which the driver puts them back.
    """
    back, size = folder.with_name("back"), sum(file.stat().st_size for file in folder.iterdir())
    start = time.perf_counter()
    for _ in range(repeats):
        called = send(remote, "x", folder)
    sent = time.perf_counter()
    for _ in range(repeats):
        back.mkdir()
        receive(remote, called, back)
        shutil.rmtree(back)
    return {
        "bytes": size,
        "send": (sent - start) / repeats,
        "put_back": (time.perf_counter() - sent) / repeats,
    }


def main() -> None:
    """Measure and print, and write all numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True, help="the file of the numbers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overhead-") as temporary:
        scratch = Path(temporary)
        checkout = commit(scratch / "checkout")
        params, paths = trained(scratch / "trained")
        found = rows(paths.root, checkout, scratch)
        remote = Remote(str(scratch / "shared"))
        small, large = (
            next(
                file.parent
                for file in (scratch / f"local-1-{MANY}" / "artefacts").rglob("record.json")
            ),
            scratch / "large",
        )
        large.mkdir()
        (large / "weights").write_bytes(os.urandom(LARGE))
        of_driver = held(params), transfer(remote, small, REPEATS), transfer(remote, large, 10)
    print(tabulate(found, headers="keys", floatfmt=".3f"), "\n")
    for row in of_driver:
        print(
            tabulate(row.items(), headers=["of the driver", "seconds, bytes"], floatfmt=".6f"), "\n"
        )
    content = {"rows": found} | dict(zip(("held", "small", "large"), of_driver, strict=True))
    arguments.into.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
