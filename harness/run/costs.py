"""What making dense models and points took: kept beside the artefacts as each ends, and
put together into one file a machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import cpuinfo
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.run.paths import Paths
from leaderboard.records import files
from leaderboard.records.results import read_record
from leaderboard.records.schema import CostsFile, Maker, Spent, TrainedIn

# the fingerprint of every point of a track, by method and id
Wanted = Mapping[str, Mapping[str, str]]


class Kept(BaseModel):
    """What a point, or a dense model, took, and on which machine."""

    model_config = ConfigDict(frozen=True)
    machine: Maker
    spent: Spent | TrainedIn


@cache  # asking for the processor starts a process
def this_machine() -> Maker:
    """Return what this machine is to whoever reads how long something took, and what
    decides by which instructions torch computes.
    """
    cpu = cpuinfo.get_cpu_info()
    content = {
        "cpu": str(cpu.get("brand_raw", platform.processor() or "unknown")),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    about = json.dumps({**content, "flags": sorted(cpu.get("flags", []))}, sort_keys=True)
    return Maker.model_validate(
        {**content, "fingerprint": hashlib.sha256(about.encode()).hexdigest()[:16]}
    )


def keep(file: Path, machine: Maker, spent: Spent | TrainedIn) -> None:
    """Note in `file` what a point or a dense model took."""
    files.write_record(file, Kept(machine=machine, spent=spent))


def write_costs(paths: Paths, track: str, dense: Mapping[str, str], wanted: Wanted) -> None:
    """Write a file for each machine that made something of the track here: what was
    noted, and what it holds already of points that stand.

    dense, wanted: the fingerprints of the dense models, and of all points of the
    methods that were asked for; what is known of others stays.
    """
    trained = [
        (model, _kept(paths.spent_on_dense(track, model), fingerprint))
        for model, fingerprint in dense.items()
    ]
    points = [
        (method, name, fingerprint)
        for method, names in wanted.items()
        for name, fingerprint in names.items()
    ]
    made = [
        (method, name, _kept(paths.spent(track, method, name), fingerprint))
        for method, name, fingerprint in points
    ]
    machines = {
        kept.machine.fingerprint: kept.machine
        for kept in [*(kept for *_, kept in trained), *(kept for *_, kept in made)]
        if kept
    }
    for name, machine in machines.items():
        file = paths.costs(track) / f"{name}.json"
        before = _before(file, paths.version, track) or CostsFile(
            version=paths.version, track=track, machine=machine
        )
        of_dense = {
            model: old for model, old in before.dense.items() if dense.get(model) == old.fingerprint
        }
        of_dense |= {
            model: kept.spent
            for model, kept in trained
            if kept and kept.machine == machine and isinstance(kept.spent, TrainedIn)
        }
        of_points = {
            method: _of_method(before, method, wanted.get(method))
            for method in sorted({*before.points, *wanted})
        }
        for method, point, kept in made:
            if kept and kept.machine == machine and isinstance(kept.spent, Spent):
                of_points[method][point] = kept.spent
        found = {
            method: dict(sorted(points.items())) for method, points in of_points.items() if points
        }
        files.write_record(
            file, before.model_copy(update={"machine": machine, "dense": of_dense, "points": found})
        )


def _of_method(
    before: CostsFile, method: str, wanted: Mapping[str, str] | None
) -> dict[str, Spent]:
    """Return what is known already of a method's points, of those that stand if the
    method is one that was asked for.
    """
    known = before.points.get(method, {})
    return {
        name: spent
        for name, spent in known.items()
        if wanted is None or wanted.get(name) == spent.fingerprint
    }


def seconds_of(paths: Paths, tracks: Iterable[str]) -> dict[str, float]:
    """Return what each point of the tracks took when it was last recorded, by its
    name.
    """
    found = [
        (track, costs)
        for track in tracks
        for file in sorted(paths.costs(track).glob("*.json"))
        if (costs := _before(file, paths.version, track))
    ]
    return {
        f"{track} {method} {name}": spent.whole
        for track, costs in found
        for method, points in costs.points.items()
        for name, spent in points.items()
    }


def _kept(file: Path, fingerprint: str) -> Kept | None:
    try:
        found = Kept.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):  # nothing decides by it
        return None
    return found if found.spent.fingerprint == fingerprint else None


def _before(file: Path, version: str, track: str) -> CostsFile | None:
    if not file.exists():
        return None
    found = read_record(file, CostsFile)
    return (
        found if (found.version, found.track) == (version, track) and found.origin is None else None
    )
