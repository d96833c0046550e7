"""What a trial is asked to do, and the experiment that does it: a model, images, and
methods at settings.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import timm

from harness.models import register
from harness.models.imported import import_models, is_function, model_named
from harness.run.methods_named import distinct
from leaderboard.records.errors import unknown
from leaderboard.records.method_settings import MethodPlan
from leaderboard.records.params import ModelParams, Params, RunParams, TrackParams
from leaderboard.records.params_base import JOIN
from leaderboard.records.recipes import ScheduleParams
from leaderboard.records.schema import DENSE
from leaderboard.records.yaml_loader import validated

UNTRAINED = {"epochs": 0.0, "warmup": 0.0, "label_smoothing": 0.0}  # of a recipe
FLIPPED = {"flip": 0.5}  # how images that are trained on are augmented


@dataclass(frozen=True)
class AskedModel:
    """A model: a name of timm's, or a function `package.module:function`, with its
    weights, and what else is to be imported.

    made: what `ModelParams` may say beside, such as its arguments and its images' size.
    """

    name: str
    weights: str
    imports: tuple[str, ...]
    made: Mapping[str, Any]

    @property
    def timm(self) -> str:
        """Return how timm calls it, once all is imported."""
        return model_named(self.name)

    @property
    def row(self) -> str:
        """Return what it is called in the results."""
        return named_in_results(self.timm)

    @property
    def all_imports(self) -> list[str]:
        """Return all that tells timm of models."""
        return [*self.imports, *([self.name] if is_function(self.name) else [])]

    def params(self) -> ModelParams:
        """Return the model as a track has it; raise UserError if timm does not know it."""
        import_models(self.all_imports)
        register()
        if not timm.is_model(self.timm):
            raise unknown("timm model", self.timm, timm.list_models())
        content = {"timm": self.timm, "weights": self.weights, **self.made}
        return validated(Path("the model"), ModelParams, content)


@dataclass(frozen=True)
class Asked:
    """A model, images as a dataset with what it is told, and methods: by name, each with
    the settings asked for.

    track: what the images are called in the results.
    """

    model: AskedModel
    track: str
    dataset: str
    data: Mapping[str, Any]
    methods: Mapping[str, list[dict[str, Any]]]
    calibration: int
    epochs: float
    device: str
    workers: int


def named_in_results(text: str) -> str:
    """Return a name that results may have."""
    found = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return found if found[:1].isalpha() else f"x_{found}"


def experiment(asked: Asked, defaults: Params) -> Params:
    """Return the experiment of a trial: one track, its methods with dense first, and the
    default hardware at one image, at the version of `defaults`; each worker may have its
    share of the memory.

    Raises UserError for a model that timm does not know, and a device that there is not.
    """
    first = next(iter(defaults.tracks.values()))
    recipe = _recipe(first.fine_tune, asked.epochs)
    track = {
        "dataset": asked.dataset,
        "data": dict(asked.data),
        "calibration": asked.calibration,
        "augment": FLIPPED,
        "device": asked.device,
        "seeds": [0],
        "seconds": 24 * 3600,
        "scratch": recipe,
        "fine_tune": recipe,
        "models": {asked.model.row: asked.model.params()},
        "imports": asked.model.all_imports,
    }
    plans = {DENSE: MethodPlan(settings=[{}])} | {
        name: MethodPlan(settings=settings)
        for name, settings in asked.methods.items()
        if name != DENSE
    }
    hardware = {
        name: profile.model_copy(update={"batches": [1]})
        for name, profile in defaults.hardware.items()
    }
    memory = psutil.virtual_memory().total
    return Params(
        version=defaults.version,
        run=RunParams(workers=asked.workers, gibibytes=memory / 2**30 / asked.workers),
        tracks={asked.track: validated(Path("the trial"), TrackParams, track)},
        methods={name: plan for name, plan in plans.items() if JOIN not in name},
        chains={name: plan for name, plan in plans.items() if JOIN in name},
        hardware=hardware,
    )


def added(made: Params, before: Params) -> Params:
    """Return the experiment with the methods and settings of one before that its results
    lie in the same folder of, those first.
    """

    def both(old: Mapping[str, MethodPlan], new: Mapping[str, MethodPlan]) -> dict[str, MethodPlan]:
        names = dict.fromkeys([*old, *new])
        settings = {name: [*old[name].settings] if name in old else [] for name in names}
        for name, plan in new.items():
            settings[name] = distinct(name, [*settings[name], *plan.settings])
        return {name: MethodPlan(settings=found) for name, found in settings.items()}

    return made.model_copy(
        update={
            "methods": both(before.methods, made.methods),
            "chains": both(before.chains, made.chains),
        }
    )


def _recipe(usual: ScheduleParams, epochs: float) -> ScheduleParams:
    return usual.model_copy(update=UNTRAINED if epochs == 0 else {"epochs": epochs})
