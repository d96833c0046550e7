"""The stage `compress@<track>-<method>`: run the points whose fingerprint does not stand, and write the method's records and predictions.

A sweep does that for all methods of a track together, so that no core waits for the last point of a method.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from tqdm import tqdm

from harness.point import store
from harness.point.device import require
from harness.point.worker import PREDICTIONS, Job, evaluate_point
from harness.run import fingerprint, registry
from harness.run.guard import guarded_compress
from harness.run.paths import Paths
from harness.run.points import Point, expand
from harness.run.pool import Outcome, run_all, workers
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.method_settings import Plan
from leaderboard.records.params import Params

RECORD = "record.json"
Item = tuple[Point, str]  # a point to run and the fingerprint its record must have
Ran = tuple[Point, dict[str, Any]]  # a point that was run and its record


@dataclass(frozen=True)
class Summary:
    """How many points of a stage stood, were run, were skipped with a reason, and failed."""

    reused: int
    run: int
    skipped: int
    failed: int

    def __str__(self) -> str:
        return f"{self.run} run, {self.reused} stood, {self.skipped} skipped, {self.failed} failed"


@dataclass(frozen=True)
class Work:
    """The points of a method in order, the fingerprint each must have, and the records of those that stand."""

    points: list[Point]
    wanted: dict[str, str]
    standing: dict[str, dict[str, Any]]

    @property
    def todo(self) -> list[Item]:
        """Return the points to run, each with its fingerprint."""
        return [(point, self.wanted[point.id]) for point in self.points if point.id not in self.standing]


def compress(params: Params, paths: Paths, track: str, method: str) -> Summary:
    """Bring the records of `method` on `track` up to date; a failed point is a record with its reason, and is tried again by the next run."""
    plan, record = params.plan(track, method), track_record(params, paths, track)
    work = _work(params, paths, track, method, record)
    records = work.standing | {point.id: record for point, record in _run(params, paths, work.todo, f"{track}: {method}")}
    _write(paths, record, method, plan, [records[point.id] for point in work.points])
    return _summary(len(work.standing), len(work.todo), records.values())


def sweep(params: Params, paths: Paths, track: str, methods: Sequence[str] = ()) -> Summary:
    """Bring the records of `methods` (none named: of all) on `track` up to date in worker processes of this machine."""
    return swept(params, paths, [track], methods, lambda todo: _run(params, paths, todo, f"{track}: {', '.join(methods) or 'all methods'}"))


def swept(params: Params, paths: Paths, tracks: Sequence[str], methods: Sequence[str], run: Callable[[list[Item]], Iterator[Ran]]) -> Summary:
    """Have `run` do the missing points of `methods` (none: of all) on `tracks`, those first that took longest when last recorded, and write all records."""
    about = {track: track_record(params, paths, track) for track in tracks}
    pairs = [(track, method) for track in tracks for method in methods or params.plans]
    works = [_work(params, paths, track, method, about[track]) for track, method in pairs]
    seconds = _seconds(paths, pairs)
    todo = sorted((item for work in works for item in work.todo), key=lambda item: -seconds.get(_name(item[0]), math.inf))
    ran = {_name(point): record for point, record in run(todo)}
    records = [[work.standing.get(point.id) or ran[_name(point)] for point in work.points] for work in works]
    for (track, method), found in zip(pairs, records, strict=True):
        _write(paths, about[track], method, params.plan(track, method), found)
    return _summary(sum(len(work.standing) for work in works), len(ran), chain.from_iterable(records))


def track_record(params: Params, paths: Paths, track: str) -> dict[str, Any]:
    """Return what the train stage wrote of `track`; raise UserError if there is nothing, or it is of another version."""
    record: dict[str, Any] = files.read_json(paths.records(track) / "track.json")
    _same_version(record, params)
    return record


def _name(point: Point) -> tuple[str, str, str]:
    return point.track, point.method, point.id


def _work(params: Params, paths: Paths, track: str, method: str, track_record: dict[str, Any]) -> Work:
    points = expand(params, track, method)
    wanted = {point.id: fingerprint.point_fingerprint(params, point, track_record) for point in points}
    home = paths.artefacts(track, method)
    home.mkdir(parents=True, exist_ok=True)
    _clear(home, set(wanted))
    return Work(points, wanted, {point.id: record for point in points if (record := _standing(home / point.id, wanted[point.id])) is not None})


def _seconds(paths: Paths, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str, str], float]:
    """Return what each point of the tracks and methods took when it was last recorded, by track, method and id."""
    found = [(track, method, paths.points(track, method)) for track, method in pairs]
    records = [(track, method, record) for track, method, file in found if file.exists() for record in files.read_json(file)["points"]]
    return {(track, method, record["id"]): sum(record.get("timings", {}).values()) for track, method, record in records}


def _summary(reused: int, run: int, records: Iterable[dict[str, Any]]) -> Summary:
    states = [record["status"] for record in records]
    return Summary(reused, run, states.count("skipped"), states.count("failed"))


def _same_version(track_record: dict[str, Any], params: Params) -> None:
    if track_record.get("version") != params.version:
        raise UserError(f"the track's results are of version {track_record.get('version')}, params.yaml says {params.version}: run the train stage")


def _clear(home: Path, wanted: set[str]) -> None:
    """Remove half-written artefacts and those of points that params.yaml no longer names."""
    for folder in home.iterdir():
        if folder.name not in wanted:
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()


def _standing(folder: Path, wanted: str) -> dict[str, Any] | None:
    """Return the record in `folder` if its fingerprint stands, it did not fail, and its files are whole."""
    try:
        record: dict[str, Any] = files.read_json(folder / RECORD)
        if record["fingerprint"] != wanted or record["status"] == "failed":
            return None
        if record["status"] == "ok":
            whole = (folder / store.WEIGHTS).stat().st_size == record["bytes"] and (folder / store.PROGRAM).exists()
            return record if whole and len(np.load(folder / PREDICTIONS, allow_pickle=False)) == record["images"] else None
        return record
    except (UserError, KeyError, OSError, ValueError):
        return None


def _run(params: Params, paths: Paths, todo: Sequence[Item], title: str) -> Iterator[Ran]:
    """Run the points, each with its fingerprint, and yield each with its record as it ends."""
    if not todo:
        return
    require(params.track(todo[0][0].track).device)
    by_folder = {temporary(paths, point): (point, wanted) for point, wanted in todo}
    jobs = [_job(params, paths, point, folder) for folder, (point, _) in by_folder.items()]
    with workers(params.run.workers) as pool, tqdm(total=len(jobs), desc=title, unit="point", mininterval=0.5) as bar:
        for job, outcomes in run_all(pool, jobs, [guarded_compress, evaluate_point], params.track(todo[0][0].track).seconds):
            point, wanted = by_folder[job.folder]
            yield point, place(paths, point, job.folder, record_of(point, outcomes, wanted))
            bar.set_postfix_str(f"{point.method} {point.id}")
            bar.update()


def temporary(paths: Paths, point: Point) -> Path:
    """Make and return the empty folder in which the point's artefact is written; see `place`."""
    folder = paths.artefacts(point.track, point.method) / f".{point.id}.tmp"
    folder.mkdir(parents=True)
    return folder


def _job(params: Params, paths: Paths, point: Point, folder: Path) -> Job:
    dense = paths.dense(point.track) / f"{point.model}.safetensors"
    track, data = params.track_of(point.track, point.method), paths.data(point.track)
    return Job(track, point.method, point.model, point.setting, point.seed, data, dense, folder, params.run.gibibytes)


def record_of(point: Point, outcomes: Sequence[Outcome], wanted: str) -> dict[str, Any]:
    """Return the point's record, put together from the outcomes of its steps."""
    record: dict[str, Any] = {"id": point.id, "model": point.model, "setting": point.setting, "seed": point.seed}
    reason = outcomes[-1].reason
    if reason is not None:
        record |= {"status": "failed", "reason": reason, "fingerprint": wanted}
    else:
        for outcome in outcomes:
            record |= outcome.value or {}
        record["fingerprint"] = wanted
    if record["status"] == "ok":
        record["timings"] |= {"evaluate": record.pop("evaluate")}
    return record


def place(paths: Paths, point: Point, folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write the record into the point's temporary folder, move that to its place in one step, and return the record."""
    files.write_json(folder / RECORD, record)
    final = paths.artefacts(point.track, point.method) / point.id
    if final.exists():
        shutil.rmtree(final)
    folder.replace(final)
    return record


def _write(paths: Paths, track_record: dict[str, Any], method: str, plan: Plan, records: list[dict[str, Any]]) -> None:
    found = registry.load(method)
    about = {name: getattr(found, name) for name in ("family", "paper", "needs", "realisation", "stochastic")}
    if plan.scratch_epochs is not None:
        about["scratch_epochs"] = plan.scratch_epochs
    track, of_track = track_record["track"], {key: track_record[key] for key in ("version", "track", "content_hash")}
    content = {**of_track, "method": {"name": method, **about}, "points": records}
    home = paths.artefacts(track, method)
    done = [record["id"] for record in records if record["status"] == "ok"]
    predictions = {name: np.load(home / name / PREDICTIONS, allow_pickle=False) for name in done}
    files.write_bytes(paths.predictions(track, method), safetensors.numpy.save(predictions))
    files.write_json(paths.points(track, method), content)
