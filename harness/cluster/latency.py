"""Latency on the node of a cluster that offers a hardware profile: the node is asked
for as a whole, so that nothing runs beside a clock.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.exceptions import RayError, RayTaskError

from harness.cluster.join import NODE
from harness.cluster.remote import INPUTS, Input, Remote, offer
from harness.run.paths import Paths
from leaderboard.records import files
from leaderboard.records.errors import UserError, one_line
from leaderboard.records.params import Params


@dataclass(frozen=True)
class LatencyAsked:
    """What the node times: a track of `params` under a profile; `packed`: its
    artefacts, records and test images.
    """

    params: Params
    track: str
    hardware: str
    remote: Remote
    packed: Input


def measure_on_cluster(
    params: Params, paths: Paths, track: str, hardware: str, remote: Remote, machine: dict[str, Any]
) -> str:
    """Time the track's artefacts on the node `machine`, write the file that it returns,
    and return a line about it.
    """
    asked = LatencyAsked(params, track, hardware, remote, _packed(params, paths, track, remote))
    whole = {
        "num_cpus": machine["Resources"].get("CPU", 0),
        "num_gpus": machine["Resources"].get("GPU", 0),
    }
    alone = {
        **whole,
        "resources": {f"hardware:{hardware}": 1},
        "label_selector": {NODE: machine["NodeID"]},
        "max_retries": 0,
    }
    try:
        found, said = ray.get(ray.remote(timed_on_node).options(**alone).remote(asked))
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        raise UserError(
            f"{track} on {hardware}: the node that timed it failed: {one_line(str(cause))[:240]}: "
            "run again"
        ) from error
    for name, content in found.items():
        files.write_json(paths.latency(track, hardware) / name, content)
    return f"{track} on {hardware}: {said or 'latency measured'}"


def _packed(params: Params, paths: Paths, track: str, remote: Remote) -> Input:
    """Put all that timing a track needs into the remote as one file, which is the same
    as long as the points are.
    """
    wanted = [
        paths.data(track),
        paths.artefacts(track, "x").parent,
        paths.records(track) / "track.json",
        paths.points(track, "x").parent,
    ]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / f"{track}.tar"
        with tarfile.open(file, "w") as archive:
            for path in wanted:
                archive.add(path, path.relative_to(paths.root))
        return offer(remote, "latency", file)


def timed_on_node(asked: LatencyAsked) -> tuple[dict[str, Any], str]:
    """Measure in a process of its own, for its threads and its pytest, and return the
    files it wrote by name, and what it said.
    """
    with tempfile.TemporaryDirectory(prefix="shrinkmark-") as scratch:
        packed = Path(scratch) / asked.packed.name
        asked.remote.get(f"{INPUTS}/{asked.packed.sha256}", asked.packed.sha256, packed)
        with tarfile.open(packed) as archive:
            archive.extractall(scratch, filter="data")
        (Path(scratch) / "params.yaml").write_text(yaml.safe_dump(asked.params.model_dump()))
        command = [
            sys.executable,
            "-m",
            "shrinkmark",
            "measure",
            asked.track,
            asked.hardware,
            "--params",
            f"{scratch}/params.yaml",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        about = f"{asked.track} on {asked.hardware}: "
        lines = [
            line.removeprefix(about)
            for line in done.stderr.splitlines()
            if line.startswith(("error:", "not measured:", about))
        ]
        if done.returncode != 0:
            raise UserError(lines[-1] if lines else done.stderr[-240:])
        folder = Paths(Path(scratch), asked.params.version).latency(asked.track, asked.hardware)
        return {
            file.name: files.read_json(file) for file in sorted(folder.glob("*.json"))
        }, "; ".join(lines)
