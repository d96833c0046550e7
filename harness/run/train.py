"""The stage `train@<track>`: the data as the workers read it, and every dense model of the track, trained or from reference weights."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

from harness.data import splits
from harness.models.pretrained import load_reference
from harness.point.device import require, seeded
from harness.point.method_data import MethodData
from harness.run import fingerprint
from harness.run.paths import Paths
from harness.run.pool import run_all, workers
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import Params, TrackParams
from methods.parts.training.train import train


@dataclass(frozen=True)
class DenseJob:
    """One dense model to train, or to take from its reference weights."""

    track: TrackParams
    model: str
    seed: int
    data: Path
    target: Path


def train_track(params: Params, paths: Paths, track: str) -> dict[str, Any]:
    """Write the track's data, train the dense models whose fingerprint does not stand, and return the track's record."""
    require(params.track(track).device)
    loaded = splits.load(params.track(track))
    splits.save(loaded, paths.data(track))
    record_file, content_hash = paths.records(track) / "track.json", splits.content_hash(loaded)
    wanted = {model: fingerprint.dense_fingerprint(params, track, model, content_hash) for model in params.track(track).models}
    records = {model: record for model in wanted if (record := _standing(record_file, paths.dense(track), model, wanted[model])) is not None}
    records |= _run(params, paths, track, {model: wanted[model] for model in wanted if model not in records})
    content = {
        "version": params.version,
        "track": track,
        "dataset": params.track(track).dataset,
        "title": loaded.title,
        "sources": loaded.sources,
        "params_sha256": fingerprint.track_hash(params, track),
        "device": params.track(track).device,
        "seeds": params.track(track).seeds,
        "content_hash": content_hash,
        "images": {name: len(getattr(loaded, name).labels) for name in ("train", "validation", "test")} | {"calibration": len(loaded.calibration)},
        "test_labels": loaded.test.labels.tolist(),
        "models": {model: records[model] for model in wanted},
    }
    files.write_json(record_file, content)
    return content


def _standing(record_file: Path, dense: Path, model: str, wanted: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = files.read_json(record_file)["models"][model]
        weights = (dense / f"{model}.safetensors").read_bytes()
    except (UserError, KeyError, OSError):
        return None
    return record if record.get("fingerprint") == wanted and hashlib.sha256(weights).hexdigest() == record["weights_sha256"] else None


def _run(params: Params, paths: Paths, track: str, wanted: dict[str, str]) -> dict[str, dict[str, Any]]:
    if not wanted:
        return {}
    paths.dense(track).mkdir(parents=True, exist_ok=True)
    about = params.track(track)
    jobs = [DenseJob(about, model, about.seeds[0], paths.data(track), paths.dense(track) / f"{model}.safetensors") for model in wanted]
    records = {}
    with workers(params.run.workers) as pool, tqdm(total=len(jobs), desc=f"{track}: train dense", unit="model") as bar:
        for job, outcomes in run_all(pool, jobs, [make_dense], about.seconds):
            if outcomes[-1].value is None:
                raise UserError(f"dense model '{job.model}' of track '{track}' could not be trained: {outcomes[-1].reason}")
            records[job.model] = {**outcomes[-1].value, "fingerprint": wanted[job.model]}
            bar.set_postfix_str(job.model)
            bar.update()
    return records


def make_dense(job: DenseJob) -> dict[str, Any]:
    """Make one dense model, write its weights, and return its part of the track's record."""
    device = seeded(job.track.device, job.seed)
    params = job.track.models[job.model]
    learn = splits.Learn.read(job.data, device)
    start = time.perf_counter()
    model, origin = _reference(job, learn) if params.pretrained else _trained(job, learn)
    seconds = time.perf_counter() - start
    content = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()})
    files.write_bytes(job.target, content)
    test = splits.TestSplit.read(job.data)
    return {
        "timm": params.timm,
        "dense": origin,
        "scratch_epochs": job.track.scratch_of(job.model).epochs,
        "fine_tune_epochs": job.track.fine_tune_of(job.model).epochs,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "validation_accuracy": _accuracy(model, learn.validation(256), learn.tensors["validation.labels"]),
        "test_accuracy": _accuracy(model, test.batches(256, device), test.labels.to(device)),
        "seconds": round(seconds, 3),
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }


def _reference(job: DenseJob, learn: splits.Learn) -> tuple[nn.Module, str]:
    model, file = load_reference(job.track.models[job.model], learn.channels, learn.classes)
    return model.eval().to(learn.device), f"reference weights {file}"


def _trained(job: DenseJob, learn: splits.Learn) -> tuple[nn.Module, str]:
    seen = MethodData(learn, job.track, job.model, job.seed)
    return train(seen.narrower(1.0), seen, seen.scratch), f"own recipe, {seen.scratch.epochs:g} epochs"


@torch.inference_mode()
def _accuracy(model: nn.Module, batches: Iterable[Tensor], labels: Tensor) -> float:
    predictions = torch.cat([model(images).argmax(1) for images in batches])
    return float((predictions == labels).double().mean())
