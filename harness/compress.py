"""The stage `compress@<track>-<method>`: run the points whose fingerprint does not stand, and write the method's records and predictions.

A sweep does that for all methods of a track together, so that no core waits for the last point of a method.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from tqdm import tqdm

from harness import files, fingerprint, registry, store
from harness.device import require
from harness.errors import UserError
from harness.params import Params
from harness.paths import Paths
from harness.plans import Plan
from harness.points import Point, expand
from harness.pool import Outcome, run_all, workers
from harness.worker import PREDICTIONS, Job, compress_point, evaluate_point

RECORD = "record.json"


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
    def todo(self) -> list[tuple[Point, str]]:
        """Return the points to run, each with its fingerprint."""
        return [(point, self.wanted[point.id]) for point in self.points if point.id not in self.standing]


def compress(params: Params, paths: Paths, track: str, method: str) -> Summary:
    """Bring the records of `method` on `track` up to date; a failed point is a record with its reason, and is tried again by the next run."""
    plan, track_record = params.method(method).on(track), _track_record(params, paths, track)
    work = _work(params, paths, track, method, track_record)
    records = work.standing | {point.id: record for point, record in _run(params, paths, work.todo, f"{track}: {method}")}
    _write(paths, track_record, method, plan, [records[point.id] for point in work.points])
    return _summary(len(work.standing), len(work.todo), records.values())


def sweep(params: Params, paths: Paths, track: str) -> Summary:
    """Bring the records of all methods on `track` up to date; those points run first that took longest in the records at hand."""
    track_record = _track_record(params, paths, track)
    works = [_work(params, paths, track, method, track_record) for method in params.plans]
    seconds = _seconds(paths, track, params.plans)
    todo = sorted((item for work in works for item in work.todo), key=lambda item: -seconds.get((item[0].method, item[0].id), math.inf))
    run = {(point.method, point.id): record for point, record in _run(params, paths, todo, f"{track}: all methods")}
    records = [[work.standing.get(point.id) or run[point.method, point.id] for point in work.points] for work in works]
    for method, found in zip(params.plans, records, strict=True):
        _write(paths, track_record, method, params.method(method).on(track), found)
    return _summary(sum(len(work.standing) for work in works), len(run), chain.from_iterable(records))


def _track_record(params: Params, paths: Paths, track: str) -> dict[str, Any]:
    require(params.track(track).device)
    record: dict[str, Any] = files.read_json(paths.records(track) / "track.json")
    _same_version(record, params)
    return record


def _work(params: Params, paths: Paths, track: str, method: str, track_record: dict[str, Any]) -> Work:
    points = expand(params, track, method)
    wanted = {point.id: fingerprint.point_fingerprint(params, point, track_record) for point in points}
    home = paths.artefacts(track, method)
    home.mkdir(parents=True, exist_ok=True)
    _clear(home, set(wanted))
    return Work(points, wanted, {point.id: record for point in points if (record := _standing(home / point.id, wanted[point.id])) is not None})


def _seconds(paths: Paths, track: str, methods: Iterable[str]) -> dict[tuple[str, str], float]:
    """Return what each point took when it was last recorded, by method and id."""
    found = [(method, paths.points(track, method)) for method in methods]
    records = [(method, record) for method, file in found if file.exists() for record in files.read_json(file)["points"]]
    return {(method, record["id"]): sum(record.get("timings", {}).values()) for method, record in records}


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


def _run(params: Params, paths: Paths, todo: Sequence[tuple[Point, str]], title: str) -> Iterator[tuple[Point, dict[str, Any]]]:
    """Run the points, each with its fingerprint, and yield each with its record as it ends."""
    if not todo:
        return
    by_folder = {_temporary(paths, point): (point, wanted) for point, wanted in todo}
    jobs = [_job(params, paths, point, folder) for folder, (point, _) in by_folder.items()]
    with workers(params.run.workers) as pool, tqdm(total=len(jobs), desc=title, unit="point", mininterval=0.5) as bar:
        for job, outcomes in run_all(pool, jobs, [compress_point, evaluate_point], params.track(todo[0][0].track).seconds):
            point, wanted = by_folder[job.folder]
            yield point, _finish(paths, point, job.folder, outcomes, wanted)
            bar.set_postfix_str(f"{point.method} {point.id}")
            bar.update()


def _temporary(paths: Paths, point: Point) -> Path:
    folder = paths.artefacts(point.track, point.method) / f".{point.id}.tmp"
    folder.mkdir(parents=True)
    return folder


def _job(params: Params, paths: Paths, point: Point, folder: Path) -> Job:
    dense = paths.dense(point.track) / f"{point.model}.safetensors"
    track, data = params.track_of(point.track, point.method), paths.data(point.track)
    return Job(track, point.method, point.model, point.setting, point.seed, data, dense, folder, params.run.gibibytes)


def _finish(paths: Paths, point: Point, folder: Path, outcomes: list[Outcome], wanted: str) -> dict[str, Any]:
    """Write the point's record into its folder and move the folder to its place in one step."""
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
