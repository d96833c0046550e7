"""What a node of a cluster does with a point: fetch what it needs, run it under the
limits of a local run, and send back what came of it.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch

from harness.cluster.remote import Input, Remote, fetched, send
from harness.data.folder import data_folder
from harness.point.device import require
from harness.point.worker import Job, evaluate_point
from harness.run import fingerprint
from harness.run.costs import Kept, this_machine
from harness.run.guard import guarded_compress
from harness.run.paths import Paths
from harness.run.point_folder import RECORD, Made, made_of, temporary
from harness.run.points import Point
from harness.run.server.pool import CONTEXT, PRELOAD, Outcome, Pools, pools_of, reason_of, run_all
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import Params
from leaderboard.records.schema import Maker, TrackInfo

SPENT = "spent.json"  # beside the record of a point that is ok, on its way through the remote


@dataclass(frozen=True)
class Given:
    """What all points of a sweep share: the experiment, where things lie, and the torch
    that results are made with.

    records: of each track, what the train stage wrote; data, dense: the files that a
    model of a track needs.
    """

    params: Params
    remote: Remote
    records: dict[str, TrackInfo]
    data: dict[tuple[str, str], tuple[Input, ...]]
    dense: dict[tuple[str, str], Input]
    torch: str


@dataclass(frozen=True)
class Result:
    """What came of a point, on which machine and, of one that is ok, what its artefact
    is called in the remote.
    """

    made: Made
    machine: Maker
    artefact: str | None


@dataclass(frozen=True)
class RefusedNode:
    """Why a node may not run a point of this sweep."""

    node: str
    reason: str


@dataclass(frozen=True)
class FailedOnNode:
    """Why a point could not be run on a node: its inputs could not be had, its artefact
    not be sent, the disk was full; it is not the point's fault.
    """

    node: str
    reason: str


def torch_build() -> str:
    """Return the build of torch by its version, tag and commit: two builds of a version
    round differently.
    """
    return f"{importlib.metadata.version('torch')} ({torch.version.git_version[:10]})"


def run_point(
    given: Given, point: Point, wanted: str, node: str
) -> Result | RefusedNode | FailedOnNode:
    """Run `point`, whose fingerprint here must be `wanted`, on this node."""
    try:
        reason = _foreign(given, point, wanted)
        return _ran(given, point, wanted) if reason is None else RefusedNode(node, reason)
    except Exception as error:  # whatever it is, the point is tried on another node
        _pools.cache_clear()  # should they be the reason
        return FailedOnNode(node, reason_of(error))


def _ran(given: Given, point: Point, wanted: str) -> Result:
    with tempfile.TemporaryDirectory(prefix="shrinkmark-") as scratch:
        folder = temporary(Paths(Path(scratch), given.params.version), point)
        made, machine = made_of(point, _outcomes(given, point, folder), wanted), this_machine()
        if made.spent is None:
            return Result(made, machine, None)
        files.write_record(folder / RECORD, made.record)
        files.write_record(folder / SPENT, Kept(machine=machine, spent=made.spent))
        return Result(made, machine, send(given.remote, wanted, folder))


def _foreign(given: Given, point: Point, wanted: str) -> str | None:
    """Say why what this node makes of `point` would be something else than asked for,
    or None.
    """
    if torch_build() != given.torch:
        return f"it has torch {torch_build()}, this sweep is made with {given.torch}"
    try:
        require(given.params.track(point.track).device)
        found = fingerprint.point_fingerprint(given.params, point, given.records[point.track])
    except UserError as error:
        return str(error)
    return (
        None
        if found == wanted
        else (
            f"its code or libraries are of another revision: {point.method} would be made by "
            f"{fingerprint.libraries()}"
        )
    )


def _outcomes(given: Given, point: Point, folder: Path) -> list[Outcome]:
    steps: list[Callable[[Job], dict[str, Any]]] = [
        partial(guarded_compress, closed=given.remote.inputs),
        evaluate_point,
    ]
    ((_, outcomes),) = run_all(
        _pools(), [_job(given, point, folder)], steps, given.params.track(point.track).seconds
    )
    return outcomes


@cache
def _pools() -> Pools:
    """Return the pools of this process, which runs points until Ray ends it: ending
    pools takes them most of a second, which each point would wait for.

    The server that their workers are forked from is started so that nothing outlives
    this process.
    """
    CONTEXT.set_forkserver_preload(["harness.run.server.die_with_parent", *PRELOAD])
    forkserver.ensure_running()
    return pools_of(1)


def _job(given: Given, point: Point, folder: Path) -> Job:
    cache = data_folder() / "cluster"
    data = [fetched(given.remote, cache, item) for item in given.data[point.track, point.model]]
    dense = fetched(given.remote, cache, given.dense[point.track, point.model])
    track = given.params.track_of(point.track, point.method)
    about = (point.method, point.model, point.setting, point.seed)
    return Job(track, *about, data[0].parent, dense, folder, given.params.run.gibibytes)
