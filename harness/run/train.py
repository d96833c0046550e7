"""The stage `train@<track>`: the data as the workers read it, and every dense model of
the track, trained or from reference weights.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.data import splits
from harness.point.dense import DenseJob, make_dense
from harness.point.device import require
from harness.run import costs
from harness.run.fingerprint import dense_fingerprint
from harness.run.paths import Paths
from harness.run.prepare import prepare
from harness.run.progress import progress
from harness.run.server.pool import run_all, workers
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import Params, TrackParams
from leaderboard.records.results import read_record
from leaderboard.records.schema import TrackInfo, Trained, TrainedIn


def train_track(params: Params, paths: Paths, track: str) -> TrackInfo:
    """Write the track's data, train the dense models whose fingerprint does not stand,
    and return the track's record.
    """
    about = params.track(track)
    require(about.device)
    data = prepare(about, paths.data(track))
    record_file = paths.records(track) / "track.json"
    wanted = {
        model: dense_fingerprint(params, track, model, data.content_hash) for model in about.models
    }
    found = {
        model: _standing(record_file, paths.dense(track), model, fingerprint)
        for model, fingerprint in wanted.items()
    }
    records = {model: trained for model, trained in found.items() if trained is not None}
    records |= _run(
        params, paths, track, {model: wanted[model] for model in wanted if model not in records}
    )
    record = TrackInfo(
        version=params.version,
        track=track,
        dataset=about.dataset,
        title=data.title,
        content_hash=data.content_hash,
        sources=data.sources,
        device=about.device,
        seeds=tuple(about.seeds),
        images=data.images,
        test_labels=data.test_labels,
        notes=data.notes,
        models={model: records[model].model_copy(update=_epochs(about, model)) for model in wanted},
    )
    files.write_record(record_file, record)
    return record


def _epochs(about: TrackParams, model: str) -> dict[str, float]:
    """Return the budgets of what is made from a model, which do not decide the model
    itself.
    """
    return {
        "scratch_epochs": about.scratch_of(model).epochs,
        "fine_tune_epochs": about.fine_tune_of(model).epochs,
    }


def _standing(record_file: Path, dense: Path, model: str, wanted: str) -> Trained | None:
    try:
        record = read_record(record_file, TrackInfo).models[model]
        weights = (dense / f"{model}.safetensors").read_bytes()
    except (UserError, KeyError, OSError):
        return None
    return (
        record
        if record.fingerprint == wanted
        and hashlib.sha256(weights).hexdigest() == record.weights_sha256
        else None
    )


def _run(params: Params, paths: Paths, track: str, wanted: dict[str, str]) -> dict[str, Trained]:
    if not wanted:
        return {}
    paths.dense(track).mkdir(parents=True, exist_ok=True)
    about, machine = params.track(track), costs.this_machine()
    jobs = [
        DenseJob(
            about,
            model,
            about.seeds[0],
            splits.folder_of(paths.data(track), about, model),
            paths.dense(track) / f"{model}.safetensors",
        )
        for model in wanted
    ]
    records = {}
    with (
        workers(params.run.workers) as pool,
        progress(f"{track}: train dense", "model", wanted) as bar,
    ):
        begun = bar.started(jobs, lambda job: job.model)
        for job, outcomes in run_all(pool, begun, [make_dense], about.seconds):
            made = outcomes[-1].value
            if made is None:
                raise UserError(
                    f"dense model '{job.model}' of track '{track}' could not be trained: "
                    f"{outcomes[-1].reason}"
                )
            records[job.model] = Trained.model_validate(
                {**made["record"], "fingerprint": wanted[job.model]}
            )
            costs.keep(
                paths.spent_on_dense(track, job.model),
                machine,
                TrainedIn(fingerprint=wanted[job.model], seconds=made["seconds"]),
            )
            bar.ended(job.model)
    return records
