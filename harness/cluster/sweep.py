"""The points of a sweep on a Ray cluster. Ray schedules them; this hands them over,
tries again what a lost node took along, and puts back what returns.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import ray
from ray.exceptions import RayError
from tqdm import tqdm

from harness.cluster.inputs import given_for
from harness.cluster.join import NODE, demand, fits
from harness.cluster.remote import POINTS, WHOLE, Remote, receive
from harness.cluster.shape import TaskShape
from harness.cluster.tasks import SPENT, FailedOnNode, Given, RefusedNode, Result, run_point
from harness.run.compress import Item, Ran, Summary, swept
from harness.run.costs import Kept, this_machine
from harness.run.paths import Paths
from harness.run.point_folder import RECORD, Made, made_of, temporary
from harness.run.points import Point
from harness.run.progress import Progress, progress
from harness.run.server.pool import Outcome
from leaderboard.records.errors import UserError, one_line
from leaderboard.records.params import Params
from leaderboard.records.results import read_record
from leaderboard.records.schema import Measured, Spent

AGAIN = 3  # times that a point is tried again whose worker, node or transfer failed
# points handed over at a time: more than there are workers, few enough for the driver's
# memory
WINDOW = 4000


@dataclass
class Handed:
    """Where a sweep stands: points that wait, those handed over by their Ray reference,
    how often and where each failed, and the nodes that may run none.
    """

    waiting: deque[Item]
    running: dict[Any, Item] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)  # by fingerprint
    # nodes to avoid, by fingerprint, while there are others
    failed_on: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    refused: dict[str, str] = field(default_factory=dict)  # nodes, with the reason


def sweep_on_cluster(
    params: Params,
    paths: Paths,
    tracks: Sequence[str],
    methods: Sequence[str],
    remote: Remote,
    shape: TaskShape,
) -> Summary:
    """Do what `swept` does on the cluster that this process has joined; `shape` is what
    a point asks for, its GPUs only on tracks of device cuda.
    """
    return swept(
        params,
        paths,
        tracks,
        methods,
        lambda todo, known: _run(params, paths, todo, known, remote, shape),
    )


def _run(
    params: Params,
    paths: Paths,
    todo: list[Item],
    known: Mapping[str, float],
    remote: Remote,
    shape: TaskShape,
) -> Iterator[Ran]:
    """Yield each point with its record: first those that an earlier sweep has left in
    the remote, then those that the cluster computes, as they end.
    """
    if not todo:
        return
    left = {name.split(".")[0]: name for name in _of(remote, todo) if name.endswith(WHOLE)}
    with progress("cluster", "point", (point.name for point, _ in todo), known) as bar:
        for point, wanted in todo:
            if wanted in left:
                yield from _put_back(paths, remote, point, left[wanted], bar)
        missing = [item for item in todo if item[1] not in left]
        if missing:
            given = given_for(
                params, paths, list(dict.fromkeys(point.track for point, _ in missing)), remote
            )
            for point, result in _computed(given, missing, shape, bar):
                yield from _put_back(paths, remote, point, result.artefact or result, bar)
    # halves that a killed node has left, and points that were tried again although
    # their first try had been sent
    for name in _of(remote, todo):
        remote.remove(f"{POINTS}/{name}")


def _of(remote: Remote, todo: list[Item]) -> list[str]:
    """Return the names of all that lies in the remote of the points: what a node has
    sent, or a part of it.
    """
    wanted = {wanted for _, wanted in todo}
    return [name for name in remote.names(POINTS) if name.split(".")[0] in wanted]


def _put_back(
    paths: Paths, remote: Remote, point: Point, came: str | Result, bar: Progress
) -> Iterator[Ran]:
    """Yield what came of a point, a result without an artefact or what one is called in
    the remote, fetched; it leaves the remote when it is in its place.
    """
    folder = temporary(paths, point)
    if isinstance(came, Result):
        yield Ran(point, came.made, came.machine, folder)
    else:
        receive(remote, came, folder)
        kept = read_record(folder / SPENT, Kept)
        assert isinstance(kept.spent, Spent)
        (folder / SPENT).unlink()
        yield Ran(
            point, Made(read_record(folder / RECORD, Measured), kept.spent), kept.machine, folder
        )
        remote.remove(f"{POINTS}/{came}")
    bar.ended(point.name)


def _computed(
    given: Given, todo: list[Item], shape: TaskShape, bar: Progress
) -> Iterator[tuple[Point, Result]]:
    """Yield each point with its result as it ends; raise UserError if no node is large
    enough for one, or none is left that may run them.
    """
    asked = {
        track: shape if given.params.track(track).device == "cuda" else shape.without_gpus
        for track in given.records
    }
    for each in set(asked.values()):
        demand(each)
    # Ray uses a worker that was given GPUs once: a point is forked from a server that
    # keeps the CUDA_VISIBLE_DEVICES it was started with.
    tasks = {track: ray.remote(**each.options)(on_node) for track, each in asked.items()}
    handed, shared, failed = Handed(deque(todo)), ray.put(given), 0
    while handed.waiting or handed.running:
        _hand_over(handed, shared, tasks, asked)
        ready, _ = ray.wait(list(handed.running), num_returns=len(handed.running), timeout=1)
        for reference in ready:
            item = handed.running.pop(reference)
            result = _result(handed, reference, item)
            if result is None:
                handed.waiting.appendleft(item)
                continue
            failed += result.made.record.status == "failed"
            yield item[0], result
        _end_if_all_are_refused(handed, asked)
        _take_back(handed, asked)
        bar.at(f"{_doing(handed, shape)}, {failed} failed")


def _hand_over(
    handed: Handed, shared: Any, tasks: dict[str, Any], asked: dict[str, TaskShape]
) -> None:
    """Give Ray as many of the points that wait as it may hold."""
    while handed.waiting and len(handed.running) < WINDOW:
        point, wanted = handed.waiting.popleft()
        avoided = _avoided(handed, wanted, asked[point.track])
        elsewhere = (
            {"label_selector": {NODE: f"!in({','.join(sorted(avoided))})"}} if avoided else {}
        )
        handed.running[tasks[point.track].options(**elsewhere).remote(shared, point, wanted)] = (
            point,
            wanted,
        )


def _avoided(handed: Handed, wanted: str, shape: TaskShape) -> set[str]:
    """Return the nodes that may not run a point: those that are refused, and those
    where it failed, unless no other is large enough.
    """
    refused, failed_on = set(handed.refused), handed.failed_on.get(wanted, set())
    if failed_on and not fits(shape, refused | failed_on):
        del handed.failed_on[wanted]
        return refused
    return refused | failed_on


def _take_back(handed: Handed, asked: dict[str, TaskShape]) -> None:
    """Take back what waits for a node other than those where it failed if the last such
    node has gone.
    """
    others: dict[tuple[str, frozenset[str]], bool] = {}
    for reference, (point, wanted) in list(handed.running.items()):
        failed_on = frozenset(handed.failed_on.get(wanted, ()))
        if failed_on and (point.track, failed_on) not in others:
            others[point.track, failed_on] = fits(
                asked[point.track], handed.refused.keys() | failed_on
            )
        if failed_on and not others[point.track, failed_on]:
            ray.cancel(reference)
            handed.waiting.appendleft(handed.running.pop(reference))


def _end_if_all_are_refused(handed: Handed, asked: dict[str, TaskShape]) -> None:
    """Raise UserError if every node that is large enough for a point that is left has
    been refused: nobody would add another to them and wait.
    """
    left = (
        {point.track: point for point, _ in chain(handed.waiting, handed.running.values())}
        if handed.refused
        else {}
    )
    for track, point in left.items():
        if not fits(asked[track], set(handed.refused)):
            last = list(handed.refused.values())[-1]
            raise UserError(
                f"no node is left for {point.method} {point.id}; the last was refused: {last}"
            )


def on_node(given: Given, point: Point, wanted: str) -> Result | RefusedNode | FailedOnNode:
    """Run `point` on the node that this is."""
    return run_point(given, point, wanted, ray.get_runtime_context().get_node_id())


def _result(handed: Handed, reference: Any, item: Item) -> Result | None:
    """Return what came of a point handed over, or None if it is to be tried again."""
    try:
        found: Result | RefusedNode | FailedOnNode = ray.get(reference)
    except RayError as error:
        return _lost(handed, item, f"{type(error).__name__}: {one_line(str(error))[:240]}")
    if isinstance(found, Result):
        return found
    if isinstance(found, FailedOnNode):
        handed.failed_on[item[1]].add(found.node)
        return _lost(handed, item, found.reason)
    if found.node not in handed.refused:
        handed.refused[found.node] = found.reason
        tqdm.write(f"node {found.node[:12]} is refused: {found.reason}")
    return None


def _lost(handed: Handed, item: Item, reason: str) -> Result | None:
    """Return the failed record of a point that was lost too often, or None."""
    point, wanted = item
    handed.failures[wanted] += 1
    if handed.failures[wanted] <= AGAIN:
        return None
    return Result(
        made_of(
            point,
            [Outcome(None, f"tried {AGAIN + 1} times on the cluster, at last: {reason}")],
            wanted,
        ),
        this_machine(),
        None,
    )


def _doing(handed: Handed, shape: TaskShape) -> str:
    """Return how many points run, by the processors in use, which may be those of
    others on the cluster, or that none can.
    """
    used: float = ray.cluster_resources().get("CPU", 0) - ray.available_resources().get("CPU", 0)
    running = min(len(handed.running), round(used / shape.cpus))
    return "waiting for a node" if handed.running and not running else f"{running} running"
