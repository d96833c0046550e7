"""The stage `compress@<track>`: run the points whose fingerprint does not stand, of all
methods together, and write records, predictions and costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import safetensors.numpy

from harness.data import splits
from harness.models.imported import import_models, importing
from harness.point import predictions
from harness.point.device import require
from harness.point.worker import Job, evaluate_point
from harness.run import costs, fingerprint, registry
from harness.run.guard import guarded_compress
from harness.run.paths import Paths
from harness.run.point_folder import Made, clear, made_of, place, standing, temporary
from harness.run.points import Point, expand
from harness.run.progress import progress
from harness.run.selection import at_hand
from harness.run.server.pool import run_all, workers
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import Params
from leaderboard.records.results import read_record, stored_name
from leaderboard.records.schema import (
    Maker,
    Measured,
    MethodInfo,
    MethodPoints,
    Stamp,
    TrackInfo,
    Unmeasured,
)

Item = tuple[Point, str]  # a point to run and the fingerprint its record must have


@dataclass(frozen=True)
class Ran:
    """A point that was run, its record, what it took on which machine if it is ok, and
    the temporary folder that its artefact is in.
    """

    point: Point
    made: Made
    machine: Maker
    folder: Path


@dataclass(frozen=True)
class Summary:
    """How many points stood, were run, were skipped with a reason, and failed."""

    reused: int
    run: int
    skipped: int
    failed: int

    def __str__(self) -> str:
        return f"{self.run} run, {self.reused} stood, {self.skipped} skipped, {self.failed} failed"


@dataclass(frozen=True)
class Work:
    """The points of a method in order, the fingerprint each must have, and the records
    of those that stand.
    """

    points: list[Point]
    wanted: dict[str, str]
    standing: dict[str, Measured | Unmeasured]

    @property
    def todo(self) -> list[Item]:
        """Return the points to run, each with its fingerprint."""
        return [
            (point, self.wanted[point.id]) for point in self.points if point.id not in self.standing
        ]


def compress(params: Params, paths: Paths, track: str, methods: Sequence[str] = ()) -> Summary:
    """Bring the records of `methods` (none named: of all) on `track` up to date in
    worker processes of this machine.

    A failed point is a record with its reason, and is tried again by the next run.
    """
    return swept(
        params,
        paths,
        [track],
        methods,
        lambda todo, known: _run(params, paths, todo, known),
    )


def swept(
    params: Params,
    paths: Paths,
    tracks: Sequence[str],
    methods: Sequence[str],
    run: Callable[[list[Item], Mapping[str, float]], Iterator[Ran]],
) -> Summary:
    """Have `run` do the missing points of `methods` (none: of all) on `tracks`, those
    first that took longest when last recorded, and write all records; it is given the
    seconds that they took, too.
    """
    about = {track: track_record(params, paths, track) for track in tracks}
    for track in tracks:
        import_models(params.track(track).imports)
        params = at_hand(params, track, about[track])
    works = {
        (track, method): _work(params, paths, track, method, about[track])
        for track in tracks
        for method in methods or params.plans
    }
    known = costs.seconds_of(paths, tracks)
    todo = sorted(
        (item for work in works.values() for item in work.todo),
        key=lambda item: -known.get(item[0].name, math.inf),
    )
    ran: dict[str, Measured | Unmeasured] = {}
    for done in run(todo, known):
        # before it stands, or a run that is killed in between would never know
        if done.made.spent is not None:
            costs.keep(
                paths.spent(done.point.track, done.point.method, done.point.id),
                done.machine,
                done.made.spent,
            )
        place(paths, done.point, done.folder, done.made.record)
        ran[done.point.name] = done.made.record
    records = {
        pair: [work.standing.get(point.id) or ran[point.name] for point in work.points]
        for pair, work in works.items()
    }
    for (track, method), found in records.items():
        _write(params, paths, about[track], method, found)
    for track in tracks:
        of_track = {method: work.wanted for (name, method), work in works.items() if name == track}
        dense = {model: trained.fingerprint for model, trained in about[track].models.items()}
        costs.write_costs(paths, track, dense, of_track)
    return _summary(
        sum(len(work.standing) for work in works.values()),
        len(ran),
        chain.from_iterable(records.values()),
    )


def track_record(params: Params, paths: Paths, track: str) -> TrackInfo:
    """Return what the train stage wrote of `track`; raise UserError if there is
    nothing, or it is of another version.
    """
    file = paths.records(track) / "track.json"
    stamp = read_record(file, Stamp)
    if stamp.version != params.version:
        raise UserError(
            f"the track's results are of version {stamp.version}, params.yaml says "
            f"{params.version}: run the train stage"
        )
    return read_record(file, TrackInfo)


def _work(params: Params, paths: Paths, track: str, method: str, about: TrackInfo) -> Work:
    points = expand(params, track, method)
    wanted = {point.id: fingerprint.point_fingerprint(params, point, about) for point in points}
    home = paths.artefacts(track, method)
    home.mkdir(parents=True, exist_ok=True)
    clear(home, set(wanted))
    return Work(
        points,
        wanted,
        {
            point.id: record
            for point in points
            if (record := standing(home / point.id, wanted[point.id])) is not None
        },
    )


def _summary(reused: int, run: int, records: Iterable[Measured | Unmeasured]) -> Summary:
    states = [record.status for record in records]
    return Summary(reused, run, states.count("skipped"), states.count("failed"))


def _run(
    params: Params, paths: Paths, todo: Sequence[Item], known: Mapping[str, float]
) -> Iterator[Ran]:
    """Run the points, each with its fingerprint, and yield each as it ends."""
    if not todo:
        return
    track, machine = todo[0][0].track, costs.this_machine()
    about = params.track(track)
    require(about.device)
    by_folder = {temporary(paths, point): (point, wanted) for point, wanted in todo}
    jobs = [
        Job(
            track=params.track_of(point.track, point.method),
            method=point.method,
            model=point.model,
            setting=point.setting,
            seed=point.seed,
            data=splits.folder_of(paths.data(point.track), about, point.model),
            dense=paths.dense(point.track) / f"{point.model}.safetensors",
            folder=folder,
            gibibytes=params.run.gibibytes,
        )
        for folder, (point, _) in by_folder.items()
    ]
    with (
        workers(params.run.workers, importing(about.imports)) as pool,
        progress(track, "point", (point.name for point, _ in todo), known) as bar,
    ):
        begun = bar.started(jobs, lambda job: by_folder[job.folder][0].name)
        for job, outcomes in run_all(
            pool, begun, [guarded_compress, evaluate_point], about.seconds
        ):
            point, wanted = by_folder[job.folder]
            yield Ran(point, made_of(point, outcomes, wanted), machine, job.folder)
            bar.ended(point.name)


def _write(
    params: Params,
    paths: Paths,
    about: TrackInfo,
    method: str,
    records: list[Measured | Unmeasured],
) -> None:
    found, track = registry.load(method), about.track
    who = {
        name: getattr(found, name)
        for name in ("family", "paper", "needs", "realisation", "stochastic")
    }
    info = MethodInfo.model_validate(
        {"name": method, **who, "scratch_epochs": params.plan(track, method).scratch_epochs}
    )
    content = MethodPoints(
        version=about.version,
        track=track,
        content_hash=about.content_hash,
        method=info,
        points=tuple(records),
    )
    home = paths.artefacts(track, method)
    done = [record.id for record in records if isinstance(record, Measured)]
    answers = {
        stored_name(name, part): values
        for name in done
        for part, values in predictions.read(home / name).items()
    }
    files.write_bytes(paths.predictions(track, method), safetensors.numpy.save(answers))
    files.write_record(paths.points(track, method), content)
