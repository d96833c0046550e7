"""What a worker process does for a dense model: train it by the track's recipe, or take
the weights that it names, and write them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from harness.data import splits
from harness.models import weights
from harness.point.device import seeded
from harness.point.method_data import MethodData
from leaderboard.records import files
from leaderboard.records.params import TrackParams
from methods.parts.training.train import train


@dataclass(frozen=True)
class DenseJob:
    """One dense model to train, or to load, and the file for its weights."""

    track: TrackParams
    model: str
    seed: int
    data: Path
    target: Path


def make_dense(job: DenseJob) -> dict[str, Any]:
    """Make one dense model, write its weights, and return its part of the track's
    record, and the seconds that making it took.
    """
    device = seeded(job.track.device, job.seed)
    params = job.track.models[job.model]
    learn = splits.Learn.read(job.data, device)
    start = time.perf_counter()
    made = _trained(job, learn) if params.trained else _reference(job, learn)
    model = made.model
    seconds = time.perf_counter() - start
    content = safetensors.torch.save(
        {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    )
    files.write_bytes(job.target, content)
    test = splits.TestSplit.read(job.data)
    record = {
        "timm": params.timm,
        "dense": made.origin,
        "scratch_epochs": job.track.scratch_of(job.model).epochs,
        "fine_tune_epochs": job.track.fine_tune_of(job.model).epochs,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "validation_accuracy": _accuracy(
            model, learn.validation(256), learn.tensors["validation.labels"]
        ),
        "test_accuracy": _accuracy(model, test.batches(256, device), test.labels.to(device)),
        "source_sha256": made.sha256,
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }
    return {"record": record, "seconds": round(seconds, 3)}


def _reference(job: DenseJob, learn: splits.Learn) -> weights.Loaded:
    loaded = weights.load(job.track.models[job.model], learn.channels, learn.classes)
    return replace(loaded, model=loaded.model.eval().to(learn.device))


def _trained(job: DenseJob, learn: splits.Learn) -> weights.Loaded:
    seen = MethodData(learn, job.track, job.model, job.seed, "scratch")
    model = train(seen.narrower(1.0), seen, seen.scratch)
    return weights.Loaded(model, f"own recipe, {seen.scratch.epochs:g} epochs", sha256="")


@torch.inference_mode()
def _accuracy(model: nn.Module, batches: Iterable[Tensor], labels: Tensor) -> float:
    predictions = torch.cat([model(images).argmax(1) for images in batches])
    return float((predictions == labels).double().mean())
