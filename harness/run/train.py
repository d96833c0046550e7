"""The stage `train@<track>`: the data as the workers read it, and every dense model of
the track, trained or loaded.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from harness.data import dataset, splits
from harness.models.build import build
from harness.models.classifier import classes_of
from harness.models.imported import import_models, importing
from harness.models.reach import out_of_reach
from harness.models.weights import source_sha256
from harness.point.dense import DenseJob, make_dense
from harness.point.device import require
from harness.run import costs
from harness.run.fingerprint import dense_fingerprint
from harness.run.paths import Paths
from harness.run.prepare import prepare
from harness.run.progress import progress
from harness.run.selection import without
from harness.run.server.pool import run_all, workers
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import Params, TrackParams
from leaderboard.records.results import read_record
from leaderboard.records.schema import TrackInfo, Trained, TrainedIn


def train_track(params: Params, paths: Paths, track: str) -> TrackInfo:
    """Write the track's data, train the dense models whose fingerprint does not stand,
    and return the track's record.

    A model whose weights would have to be fetched and cannot be is not in it; raise
    UserError if that is true of all.
    """
    about = params.track(track)
    require(about.device)
    import_models(about.imports)
    new = [name for name in about.models if not _dense(paths, track, name).is_file()]
    params = _within_reach(params, track, new)  # before images are made for the others
    data = prepare(params.track(track), paths.data(track))
    content_hash = data.content_hash
    found = {
        model: _standing(params, paths, track, model, content_hash)
        for model in params.track(track).models
    }
    records = {model: trained for model, trained in found.items() if trained is not None}
    params = _within_reach(params, track, [model for model in found if model not in records])
    about = params.track(track)
    wanted = [model for model in about.models if model not in records]
    records |= _run(params, paths, track, wanted, content_hash)
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
        models={
            model: records[model].model_copy(update=_epochs(about, model)) for model in about.models
        },
    )
    files.write_record(paths.records(track) / "track.json", record)
    return record


def _dense(paths: Paths, track: str, model: str) -> Path:
    return paths.dense(track) / f"{model}.safetensors"


def _within_reach(params: Params, track: str, models: Sequence[str]) -> Params:
    """Return the experiment without those of `models` whose weights cannot be had;
    raise UserError if the track has no other.
    """
    about = params.track(track)
    reasons = out_of_reach({model: about.models[model] for model in models})
    if reasons and len(reasons) == len(about.models):
        dataset(about.dataset, about.data).load()  # says first whether images are missing too
        model, reason = next(iter(reasons.items()))
        raise UserError(
            f"dense model '{model}' of track '{track}' could not be made: weights "
            f"{about.models[model].weights} cannot be had ({reason}): mend the name or the "
            "connection, or name a file by `weights`"
        )
    return without(params, track, reasons)


def _epochs(about: TrackParams, model: str) -> dict[str, float]:
    """Return the budgets of what is made from a model, which do not decide the model
    itself.
    """
    return {
        "scratch_epochs": about.scratch_of(model).epochs,
        "fine_tune_epochs": about.fine_tune_of(model).epochs,
    }


def _standing(
    params: Params, paths: Paths, track: str, model: str, content_hash: str
) -> Trained | None:
    """Return the record of a dense model that need not be made again; one that was
    loaded from a file that is gone stands.
    """
    try:
        record = read_record(paths.records(track) / "track.json", TrackInfo).models[model]
        weights = _dense(paths, track, model).read_bytes()
    except (UserError, KeyError, OSError):
        return None
    source = source_sha256(params.track(track).models[model]) or record.source_sha256
    wanted = dense_fingerprint(params, track, model, content_hash, source)
    return (
        record
        if record.fingerprint == wanted
        and hashlib.sha256(weights).hexdigest() == record.weights_sha256
        else None
    )


def _run(
    params: Params, paths: Paths, track: str, wanted: list[str], content_hash: str
) -> dict[str, Trained]:
    if not wanted:
        return {}
    about, machine = params.track(track), costs.this_machine()
    for model in wanted:
        _check_classifier(about, model, splits.folder_of(paths.data(track), about, model))
    paths.dense(track).mkdir(parents=True, exist_ok=True)
    jobs = [
        DenseJob(
            about,
            model,
            about.seeds[0],
            splits.folder_of(paths.data(track), about, model),
            _dense(paths, track, model),
        )
        for model in wanted
    ]
    records = {}
    with (
        workers(params.run.workers, importing(about.imports)) as pool,
        progress(f"{track}: train dense", "model", wanted) as bar,
    ):
        begun = bar.started(jobs, lambda job: job.model)
        for job, outcomes in run_all(pool, begun, [make_dense], about.seconds):
            made = outcomes[-1].value
            if made is None:
                raise UserError(
                    f"dense model '{job.model}' of track '{track}' could not be made: "
                    f"{outcomes[-1].reason}"
                )
            fingerprint = dense_fingerprint(
                params, track, job.model, content_hash, made["record"]["source_sha256"]
            )
            seen = made["record"]["validation_accuracy"]
            records[job.model] = Trained.model_validate(
                {
                    **made["record"],
                    # of no images, where there are none
                    "validation_accuracy": None if math.isnan(seen) else seen,
                    "fingerprint": fingerprint,
                }
            )
            costs.keep(
                paths.spent_on_dense(track, job.model),
                machine,
                TrainedIn(fingerprint=fingerprint, seconds=made["seconds"]),
            )
            bar.ended(job.model)
    return records


def _check_classifier(about: TrackParams, model: str, data: Path) -> None:
    """Raise UserError if a model is no classifier of the track's images, before it is
    trained.
    """
    learn = splits.Learn.read(data, torch.device("cpu"))
    made = build(about.models[model], learn.channels, learn.classes).eval()
    try:
        found = classes_of(made, learn.probe(2))
    except UserError as error:
        raise UserError(f"model '{model}' ({about.models[model].timm}): {error}") from error
    if found != learn.classes:
        raise UserError(
            f"model '{model}' ({about.models[model].timm}) tells {found} classes apart, the data "
            f"have {learn.classes}: let it take num_classes"
        )
