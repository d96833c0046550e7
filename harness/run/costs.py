"""What making dense models and points took: kept beside the artefacts as each ends, and put together into one file a machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import cpuinfo
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.run.paths import Paths
from leaderboard.records import files
from leaderboard.records.results import read_json
from leaderboard.records.schema import Costs, Maker, Spent, TrainedIn

Wanted = Mapping[str, Mapping[str, str]]  # the fingerprint of every point of a track, by method and id


Note = TypeVar("Note", bound=BaseModel)


class Kept(BaseModel):
    """What a point took, and on which machine."""

    model_config = ConfigDict(frozen=True)
    machine: Maker
    spent: Spent


class KeptDense(BaseModel):
    """What a dense model took, and on which machine."""

    model_config = ConfigDict(frozen=True)
    machine: Maker
    spent: TrainedIn


def this_machine() -> Maker:
    """Return what this machine is to whoever reads how long something took, and what decides by which instructions torch computes."""
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
    return Maker.model_validate({**content, "fingerprint": hashlib.sha256(about.encode()).hexdigest()[:16]})


def keep(paths: Paths, track: str, method: str, point: str, machine: Maker, spent: Spent) -> None:
    """Note what a point took."""
    files.write_text(paths.spent(track, method, point), Kept(machine=machine, spent=spent).model_dump_json())


def keep_dense(paths: Paths, track: str, model: str, machine: Maker, spent: TrainedIn) -> None:
    """Note what a dense model took."""
    files.write_text(paths.spent_on_dense(track, model), KeptDense(machine=machine, spent=spent).model_dump_json())


def write_costs(paths: Paths, track: str, dense: Mapping[str, str], wanted: Wanted) -> None:
    """Write a file for each machine that made points of the track here: what was noted, and what it holds already of points that stand.

    dense, wanted: the fingerprints of the dense models, and of all points.
    """
    points = [(method, name, fingerprint) for method, names in wanted.items() for name, fingerprint in names.items()]
    made = [(method, name, kept) for method, name, fingerprint in points if (kept := _kept(paths.spent(track, method, name), Kept)) and kept.spent.fingerprint == fingerprint]
    trained = [(model, kept) for model, fingerprint in dense.items() if (kept := _kept(paths.spent_on_dense(track, model), KeptDense)) and kept.spent.fingerprint == fingerprint]
    machines = {kept.machine.fingerprint: kept.machine for kept in [*(kept for _, _, kept in made), *(kept for _, kept in trained)]}
    for name, machine in machines.items():
        file = paths.costs(track) / f"{name}.json"
        before = _before(file, paths.version, track)
        new: dict[str, dict[str, Spent]] = {method: {} for method in wanted}
        for method, point, fingerprint in points:
            old = before.points.get(method, {}).get(point) if before else None
            if old is not None and old.fingerprint == fingerprint:
                new[method][point] = old
        for method, point, kept in made:
            if kept.machine.fingerprint == name:
                new[method][point] = kept.spent
        old_dense = {model: old for model, old in (before.dense if before else {}).items() if dense.get(model) == old.fingerprint}
        new_dense = old_dense | {model: kept.spent for model, kept in trained if kept.machine.fingerprint == name}
        content = Costs(version=paths.version, track=track, machine=machine, dense=new_dense, points={method: found for method, found in new.items() if found})
        files.write_record(file, content)


def seconds_of(paths: Paths, tracks: Iterable[str]) -> dict[tuple[str, str, str], float]:
    """Return what each point of the tracks took when it was last recorded, by track, method and id."""
    found = [(track, costs) for track in tracks for file in sorted(paths.costs(track).glob("*.json")) if (costs := _before(file, paths.version, track))]
    return {(track, method, name): spent.whole for track, costs in found for method, points in costs.points.items() for name, spent in points.items()}


def _kept(file: Path, kind: type[Note]) -> Note | None:
    try:
        return kind.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):  # nothing decides by it
        return None


def _before(file: Path, version: str, track: str) -> Costs | None:
    if not file.exists():
        return None
    found = read_json(file, Costs)
    return found if (found.version, found.track) == (version, track) and found.origin is None else None
