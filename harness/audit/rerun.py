"""Running recorded points again: dense trained anew, a sample of the points compressed
from it, and each compared with its record.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from harness.data import splits
from harness.models.imported import importing
from harness.point import predictions
from harness.point.worker import Job, evaluate_point
from harness.run.guard import guarded_compress
from harness.run.paths import Paths
from harness.run.point_folder import made_of
from harness.run.points import Point
from harness.run.selection import Selection, selected
from harness.run.server.pool import Outcome, run_all, workers
from harness.run.train import train_track
from leaderboard.exchange.agreement import Agreement, Rerun, Verdict, Verification, agreement_of
from leaderboard.records.errors import Interrupted, UserError, one_line
from leaderboard.records.params import Params
from leaderboard.records.results import Predictions, TrackResults, read_records
from leaderboard.records.schema import Measured


@dataclass(frozen=True)
class Sample:
    """Which points are run again: a share of those of the chosen methods and models
    (above 1: so many of them), drawn by `seed`.
    """

    chosen: Selection
    share: float
    seed: int


@dataclass(frozen=True)
class Recorded:
    """A measured point of a method and its (images,) predictions."""

    method: str
    point: Measured
    predictions: Predictions


def rerun(params: Params, records: Path, track: str, sample: Sample) -> Verification:
    """Run a sample of the `ok` points in the folder `records` again in a temporary
    folder; no other point is run, nothing is written elsewhere.

    Raises UserError where the records are broken, of other data or of another version,
    or hold no point that params.yaml can run.
    """
    found = read_records(records, params.version, track)
    points = drawn(candidates(params, track, found, sample.chosen), sample)
    models = tuple(dict.fromkeys(recorded.point.model for recorded in points))
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(Path(folder), params.version)
        fresh = train_track(selected(params, track, Selection(models=models)), paths, track)
        if fresh.content_hash != found.info.content_hash:
            raise UserError(
                f"the records rest on data {found.info.content_hash[:16]}…, this machine has "
                f"{fresh.content_hash[:16]}…: nothing to compare"
            )
        for model in models:
            if model not in fresh.models:
                raise UserError(
                    f"weights of '{model}' cannot be had here, so that its points cannot be run "
                    "again: choose others with --model"
                )
        dense = {
            model: fresh.models[model].weights_sha256 == found.info.models[model].weights_sha256
            for model in models
        }
        try:
            again = _run(params, paths, track, points, found.labels)
        except Interrupted:
            raise Interrupted("nothing of what was run again is kept") from None
        return Verification(dense=dense, points=again)


def verdicts(found: Verification) -> Iterator[str]:
    """Yield a line for each dense model that came out otherwise, one for each point,
    and the sum of them.
    """
    for model in (model for model, same in found.dense.items() if not same):
        yield f"dense {model}: other weights than recorded: points made from it may differ honestly"
    for point in found.points:
        yield (
            f"{point.method} {one_line(point.id)}: "
            f"{point.verdict}{f': {one_line(point.reason)}' if point.reason else ''}"
        )
    count = Counter(point.verdict for point in found.points)
    yield (
        f"{len(found.points)} points run again: "
        f"{', '.join(f'{count[verdict]} {verdict}' for verdict in get_args(Verdict))}"
    )


def candidates(
    params: Params, track: str, found: TrackResults, chosen: Selection
) -> list[Recorded]:
    """Return the measured points of the chosen methods and models that params.yaml
    knows how to run, in the order of the records.
    """
    part = selected(params, track, chosen)
    methods = set(chosen.methods or part.plans) & set(part.plans)
    known = [method for method in found.methods if method.method.name in methods]
    points = [
        Recorded(method.method.name, point, method.predictions[point.id])
        for method in known
        for point in method.measured
    ]
    points = [
        recorded
        for recorded in points
        if recorded.point.model in part.track(track).models
        and recorded.point.model in found.info.models
    ]
    if not points:
        raise UserError(
            f"{found.folder} holds no ok point of these methods and models that params.yaml "
            "names: choose others"
        )
    return points


def drawn(points: Sequence[Recorded], sample: Sample) -> list[Recorded]:
    """Return the sample, at least one point, in the order of `points`; the same seed
    draws the same points of the same records.
    """
    count = round(sample.share * len(points)) if sample.share <= 1 else round(sample.share)
    picked = random.Random(sample.seed).sample(range(len(points)), min(max(count, 1), len(points)))
    return [points[index] for index in sorted(picked)]


def _run(
    params: Params, paths: Paths, track: str, points: Sequence[Recorded], labels: np.ndarray
) -> tuple[Rerun, ...]:
    """Run the points in worker processes and compare each with its record; ids of a
    record name no folder, for they may be a stranger's.
    """
    jobs = {
        paths.artefacts(track, recorded.method) / str(index): recorded
        for index, recorded in enumerate(points)
    }
    found: dict[Path, Agreement] = {}
    with workers(params.run.workers, importing(params.track(track).imports)) as pool:
        todo = [_job(params, paths, track, recorded, folder) for folder, recorded in jobs.items()]
        for job, outcomes in run_all(
            pool, todo, [guarded_compress, evaluate_point], params.track(track).seconds
        ):
            found[job.folder] = _compared(track, jobs[job.folder], job.folder, outcomes, labels)
    return tuple(
        Rerun(method=recorded.method, id=recorded.point.id, **found[folder].model_dump())
        for folder, recorded in jobs.items()
    )


def _job(params: Params, paths: Paths, track: str, recorded: Recorded, folder: Path) -> Job:
    folder.mkdir(parents=True)
    point = recorded.point
    dense, about = (
        paths.dense(track) / f"{point.model}.safetensors",
        params.track_of(track, recorded.method),
    )
    return Job(
        about,
        recorded.method,
        point.model,
        dict(point.setting),
        point.seed,
        splits.folder_of(paths.data(track), params.track(track), point.model),
        dense,
        folder,
        params.run.gibibytes,
    )


def _compared(
    track: str, recorded: Recorded, folder: Path, outcomes: Sequence[Outcome], labels: np.ndarray
) -> Agreement:
    point = Point(
        track,
        recorded.method,
        recorded.point.model,
        dict(recorded.point.setting),
        recorded.point.seed,
    )
    again = made_of(point, outcomes, recorded.point.fingerprint).record
    if not isinstance(again, Measured):
        return Agreement(
            verdict="different", reason=f"recorded as ok, here {again.status}: {again.reason}"
        )
    return agreement_of(
        (recorded.point, recorded.predictions), (again, predictions.read(folder)["class"]), labels
    )
