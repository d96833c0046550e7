"""A whole track in one command and without DVC, and its rehearsal on a handful of
images.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import torch

from harness.latency import runtimes
from harness.latency.measure import measure
from harness.latency.standing import stands
from harness.run.compress import compress
from harness.run.paths import Paths
from harness.run.train import train_track
from leaderboard.records import passed_over
from leaderboard.records.errors import Interrupted, UserError
from leaderboard.records.method_settings import MethodPlan
from leaderboard.records.params import HardwareParams, ModelParams, Params, TrackParams
from leaderboard.records.recipes import ScheduleParams
from leaderboard.records.results import read_record
from leaderboard.records.schema import DENSE, Measured, MethodPoints

# of a rehearsal: images of each split, steps of a budget, images of a step
IMAGES, STEPS, BATCH = 256, 3, 32


def run_track(params: Params, paths: Paths, track: str) -> Generator[str, None, int]:
    """Train, compress by every method and measure what was not measured yet, on every
    profile that is not on request only, or is for a GPU; yield a line about each part as
    it ends; return how many points failed.
    """
    runtimes.check(params.profiles)
    trained = train_track(params, paths, track)
    for name, model in trained.models.items():
        yield f"{track} {name}: {model.dense}, test accuracy {100 * model.test_accuracy:.2f} %"
    yield from passed_over.lines(params, track, trained)
    compressed = compress(params, paths, track)
    yield f"{track}, all methods: {compressed}"
    for method in params.plans:
        states = Counter(
            point.status for point in read_record(paths.points(track, method), MethodPoints).points
        )
        yield (
            f"{track} {method}: "
            f"{', '.join(f'{count} {status}' for status, count in states.items())}"
        )
    dense = read_record(paths.points(track, DENSE), MethodPoints).points
    if not any(isinstance(point, Measured) for point in dense):
        raise UserError(f"dense of '{track}' cannot be measured: {dense[0].reason}")
    for hardware in [
        *params.hardware,
        *(name for name, profile in params.hardware_on_request.items() if profile.device == "cuda"),
    ]:
        if stands(params, paths, track, hardware):
            yield f"{track} on {hardware}: latency stands"
            continue
        done = measure(params, paths, track, hardware)
        ended = (
            f"skipped: {done.skipped}"
            if done.skipped
            else f"latency measured, {len(done.failed)} failed"
        )
        yield f"{track} on {hardware}: {ended}"
        yield from (f"not measured: {name}: {reason}" for name, reason in done.failed.items())
    return compressed.failed


def rehearse_track(params: Params, paths: Paths, track: str) -> Generator[str, None, int]:
    """Run the track cut down to a few images, steps and settings in a temporary folder;
    its numbers mean nothing and are thrown away.
    """
    device = params.track(track).device
    if device == "cuda" and not torch.cuda.is_available():
        yield "rehearsal on the CPU: torch finds no CUDA device here"
        device = "cpu"
    short = shortened(params, track, device)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return (yield from run_track(short, Paths(Path(folder), params.version), track))
        except Interrupted:
            raise Interrupted("nothing of a rehearsal is kept") from None


def shortened(params: Params, track: str, device: str) -> Params:
    """Return the experiment with one track, the first setting of each method, `IMAGES`
    images a split and `STEPS` steps a budget.
    """
    about = params.track(track)
    models = {name: _short_model(model) for name, model in about.models.items()}
    recipes = {"scratch": _short(about.scratch), "fine_tune": _short(about.fine_tune)}
    cut = about.model_copy(
        update={
            "device": device,
            "first": IMAGES,
            "calibration": min(about.calibration, IMAGES),
            "models": models,
            "methods": {},
            **recipes,
        }
    )
    methods = {
        name: MethodPlan(settings=params.plan(track, name).settings[:1]) for name in params.methods
    }
    chains = {
        name: MethodPlan(settings=params.plan(track, name).settings[:1]) for name in params.chains
    }
    hardware, on_request = (
        {name: _short_timing(profile) for name, profile in kind.items()}
        for kind in (params.hardware, params.hardware_on_request)
    )
    tracks = {track: TrackParams.model_validate(cut.model_dump())}
    shorter = {
        "tracks": tracks,
        "methods": methods,
        "chains": chains,
        "hardware": hardware,
        "hardware_on_request": on_request,
    }
    return params.model_copy(update=shorter)


def _short(schedule: ScheduleParams) -> ScheduleParams:
    return schedule.model_copy(update={"epochs": STEPS * BATCH / IMAGES, "batch": BATCH})


def _short_model(model: ModelParams) -> ModelParams:
    own = {
        name: _short(schedule)
        for name in ("scratch", "fine_tune")
        if (schedule := getattr(model, name)) is not None
    }
    return model.model_copy(update=own)


def _short_timing(profile: HardwareParams) -> HardwareParams:
    return profile.model_copy(
        update={"rounds": 5, "warmup_rounds": 1, "batches": profile.batches[:1]}
    )
