"""What a worker process does with a point: compress it, and, in another process,
evaluate what was read back from disk.

The first never holds test images; the second never runs a method. Each returns a part
of the point's record (see `harness.run.compress`).
"""

from __future__ import annotations

import copy
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import psutil
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from harness.data import splits
from harness.models import build
from harness.point import predictions, store
from harness.point.batch_independence import CPU, evaluated
from harness.point.device import seeded
from harness.point.method_data import MethodData
from leaderboard.records.errors import BrokenContract, UserError
from leaderboard.records.params import TrackParams
from methods import Method, Needs

EXPECTED = "expected.npy"
# calibration images on which the model that a method returned is compared with the
# artefact read back
PROBE = 16


@dataclass(frozen=True)
class Job:
    """A point with all that a worker needs to run it; `folder` exists and is empty."""

    track: TrackParams
    method: str
    model: str
    setting: dict[str, Any]
    seed: int
    data: Path
    dense: Path
    folder: Path
    gibibytes: float


def load_dense(job: Job, learn: splits.Learn) -> nn.Module:
    """Build the job's model in eval mode with its dense weights; raise UserError if the
    file is missing, truncated or of another model.
    """
    model = build.build(job.track.models[job.model], learn.channels, learn.classes)
    try:
        model.load_state_dict(safetensors.torch.load_file(job.dense))
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"dense weights {job.dense.name} cannot be read: {reason}: delete {job.dense} and run "
            "the train stage again"
        ) from error
    return model.eval()


def compress_point(job: Job, method: Method) -> dict[str, Any]:
    """Run the job's method, at its setting, on a private copy of dense and write the
    artefact; return status, reason, work and what was spent.
    """
    device = seeded(job.track.device, job.seed)
    learn = splits.Learn.read(job.data, device)
    _limit_memory(job)  # beside the data, which are mapped
    dense = load_dense(job, learn)
    reason = untrained(job, method.needs) or method.skip(copy.deepcopy(dense))
    if reason is not None:
        return {"status": "skipped", "reason": reason}
    seen = MethodData(learn, job.track, job.model, job.seed, method.needs)
    before = splits.digest(dense.state_dict())
    private = copy.deepcopy(dense).to(device)
    compressed, work, spent = _measured(lambda: method.compress(private, seen), seen)
    if splits.digest(dense.state_dict()) != before:
        raise BrokenContract(
            "the method changed the dense model: change only the model passed to compress()"
        )
    start = time.perf_counter()
    probe = learn.probe(PROBE)
    np.save(job.folder / EXPECTED, _check(compressed, dense, probe).numpy())
    store.write(job.folder, store.export(compressed, probe[:2]), store.codes_of(compressed))
    return {
        "status": "ok",
        "work": work,
        "spent": spent | {"export": round(time.perf_counter() - start, 3)},
    }


def untrained(job: Job, needs: Needs) -> str | None:
    """Say why a method that trains cannot run on the track, or None if it can."""
    recipes = {"fine-tune": job.track.fine_tune_of, "scratch": job.track.scratch_of}
    recipe = recipes[needs](job.model) if needs in recipes else None
    return None if recipe is None or recipe.epochs else f"the track trains nothing ({needs})"


def _limit_memory(job: Job) -> None:
    if job.track.device != "cpu":
        return  # a CUDA driver reserves far more addresses than memory
    used = psutil.Process().memory_info().vms
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + int(job.gibibytes * 2**30), hard))


def _measured(
    compress: Callable[[], nn.Module], seen: MethodData
) -> tuple[nn.Module, dict[str, int], dict[str, float]]:
    """Return what `compress` returns, how many images it drew and optimiser steps it
    took, and seconds and memory.
    """
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    handle = register_optimizer_step_post_hook(count)
    memory, start = _peak_mib(), time.perf_counter()
    compressed = compress()
    spent = {
        "seconds": round(time.perf_counter() - start, 3),
        "peak_mib": round(_peak_mib() - memory, 1),
    }
    handle.remove()
    return compressed, {"images": seen.images_seen, "steps": steps}, spent


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def _check(compressed: Any, dense: nn.Module, images: Tensor) -> Tensor:
    """Return the logits (N, classes) of what the method returned; raise BrokenContract
    if it cannot be a compressed model.
    """
    if not isinstance(compressed, nn.Module):
        raise BrokenContract(
            f"compress() returned {type(compressed).__name__}, not a torch.nn.Module"
        )
    compressed.eval().cpu()
    output, expected = compressed(images), dense(images)
    if not isinstance(output, Tensor) or output.shape != expected.shape:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise BrokenContract(
            f"the compressed model returns {found}, dense returns {tuple(expected.shape)}"
        )
    if not torch.isfinite(output).all():
        raise BrokenContract("the compressed model returns NaN or infinity")
    return output


def _same(found: Tensor, expected: Tensor) -> None:
    difference = float((found - expected).abs().max())
    if difference > 1e-3 * max(1.0, float(expected.abs().max())):
        raise BrokenContract(
            "the artefact read back differs from the model that the method returned: logits by "
            f"up to {difference:.2g}"
        )


@torch.inference_mode()
def evaluate_point(job: Job) -> dict[str, Any]:
    """Read the artefact back, predict the test split, count, and return the measured
    part of the record; writes the predictions beside it.

    Raises BrokenContract where what is read back is not what the method returned, or
    what it does depends on the batch or, without a branch, on the image.
    """
    device = seeded(job.track.device, job.seed)
    start = time.perf_counter()
    artefact = store.read(job.folder)
    probe = splits.Learn.read(job.data, CPU).probe(PROBE)
    _same(
        artefact.module(probe), torch.from_numpy(np.load(job.folder / EXPECTED, allow_pickle=False))
    )
    (job.folder / EXPECTED).unlink()
    test = splits.TestSplit.read(job.data)
    found, counted = evaluated(artefact, test, device)
    predictions.write(job.folder, found)
    correct, images = int((found["rank"] == 0).sum()), len(test.labels)
    return {
        "accuracy": correct / images,
        "correct": correct,
        "images": images,
        "bytes": artefact.bytes,
        "parameters": artefact.parameters,
        "macs": round(fmean(count.macs for count in counted)),
        "effective_macs": round(fmean(count.effective_macs for count in counted)),
        "bit_operations": round(fmean(count.bit_operations for count in counted)),
        "spent": {"evaluate": round(time.perf_counter() - start, 3)},
    }
