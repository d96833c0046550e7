"""Fixtures shared by the tests: one thread, and a small stand-in for a track made of
the real digits.
"""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from harness.data import Source, dataset, splits
from harness.data.transform import transform_of
from harness.models import build
from harness.point.method_data import MethodData
from leaderboard.records.params import Params, TrackParams, load_params

ROOT = Path(__file__).parent.parent
# tracing takes as long as a model has blocks
BRIEF = {"resnet": {"layers": [2, 1, 1, 1]}, "vit": {"depth": 2}, "mixer": {"num_blocks": 2}}
torch.set_num_threads(1)
# what a shell runs in the background ignores Ctrl-C, and so would all that tests start
# and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def params() -> Params:
    """The committed experiment."""
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def track(params: Params) -> TrackParams:
    """The digits track with budgets of one epoch and 64 calibration images, so that
    tests are quick.
    """
    digits = params.tracks["digits"]
    short = digits.fine_tune.model_copy(update={"epochs": 1})
    return digits.model_copy(update={"scratch": short, "fine_tune": short, "calibration": 64})


def loaded(track: TrackParams, source: Source | None = None) -> splits.TrackData:
    """Return the data of a track of stored pixels as its first model takes them."""
    found = dataset(track.dataset, track.data).load() if source is None else source
    return splits.load(found, track, transform_of(track, next(iter(track.models))), Path("/none"))


@pytest.fixture(scope="session")
def stored_data(track: TrackParams) -> splits.TrackData:
    """The real digits, split, as they are stored."""
    return loaded(track)


@pytest.fixture(scope="session")
def track_data(stored_data: splits.TrackData) -> splits.TrackData:
    """The same as models take them."""

    def normalised(pixels: torch.Tensor) -> torch.Tensor:
        return splits.normalised(pixels, stored_data.mean, stored_data.std)

    parts = {name: getattr(stored_data, name) for name in ("train", "validation", "test")}
    parts = {name: replace(split, images=normalised(split.images)) for name, split in parts.items()}
    return replace(stored_data, calibration=normalised(stored_data.calibration), **parts)


@pytest.fixture(scope="session")
def data_folder(stored_data: splits.TrackData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the track's data as the train stage writes it."""
    folder = tmp_path_factory.mktemp("data")
    splits.save(stored_data, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny project that the real stages have run; tests damage copies
    of it.
    """
    # here, for it takes two seconds to import, which most tests need not wait for
    from benchmarks.testbed.tiny_project import make

    root = tmp_path_factory.mktemp("tiny_project")
    make(root)
    return root


@pytest.fixture
def make_model(track: TrackParams):
    """Build the untrained model `name` of the track in eval mode, its norms made
    non-trivial; the same weights every time.
    """

    return partial(model_of, track)


@pytest.fixture(scope="session")
def half(track: TrackParams) -> TrackParams:
    """The track with half of its epoch: for tests that ask whether a method works, not
    how well.
    """
    budget = track.fine_tune.model_copy(update={"epochs": 0.5})
    return track.model_copy(update={"scratch": budget, "fine_tune": budget})


@pytest.fixture(scope="session")
def brief(half: TrackParams) -> TrackParams:
    """The same with models of few blocks: for tests that trace and export, which ask of
    each kind of block whether it works.
    """
    models = {
        name: model.model_copy(update={"args": {**model.args, **BRIEF.get(name, {})}})
        for name, model in half.models.items()
    }
    return half.model_copy(update={"models": models})


@pytest.fixture
def make_brief_model(brief: TrackParams):
    """As `make_model`, with few of its blocks."""
    return partial(model_of, brief)


def model_of(track: TrackParams, name: str) -> torch.nn.Module:
    """Build the untrained model `name` of `track` as `make_model` does."""
    torch.manual_seed(0)
    model = build.build(track.models[name], 1, 10)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture
def make_data(track: TrackParams, data_folder: Path):
    """Return what a method would see of the track for model `name` and `seed`."""
    return seen_of(track, data_folder)


@pytest.fixture
def make_brief_data(brief: TrackParams, data_folder: Path):
    """As `make_data`, beside `make_brief_model`: narrower models have as few blocks."""
    return seen_of(brief, data_folder)


def seen_of(track: TrackParams, folder: Path):
    """Return the function of model and seed that gives what a method sees of `track`;
    epochs: in place of those of both of its budgets.
    """

    def make(name: str, seed: int = 0, epochs: float | None = None) -> MethodData:
        budgets = (
            {}
            if epochs is None
            else {
                "scratch": track.scratch.lasting(epochs),
                "fine_tune": track.fine_tune.lasting(epochs),
            }
        )
        return MethodData(
            splits.Learn.read(folder, torch.device("cpu")),
            track.model_copy(update=budgets),
            name,
            seed,
            "scratch",
        )

    return make
