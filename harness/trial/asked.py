"""What a trial is asked to do: a model, images, and methods at settings."""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import psutil
import timm
import yaml

from harness.models import register
from harness.run import registry
from leaderboard.records.errors import UserError, unknown
from leaderboard.records.method_settings import MethodPlan
from leaderboard.records.params import Params, RunParams, TrackParams
from leaderboard.records.params_base import JOIN
from leaderboard.records.recipes import ScheduleParams
from leaderboard.records.schema import DENSE
from leaderboard.records.yaml_loader import validated
from methods import Needs

CLASSES: tuple[Needs, ...] = get_args(Needs)
SETTING = re.compile(r"(\w+)(?::(.+))?")
UNTRAINED = {"epochs": 0.0, "warmup": 0.0, "label_smoothing": 0.0}  # of a recipe


@dataclass(frozen=True)
class Asked:
    """A timm model with its weights, a folder of images with its list of classes, and
    methods: by name, each with the settings asked for, or none for its usual ones.
    """

    model: str
    weights: str
    images: Path
    classes: Path | None
    methods: Mapping[str, list[dict[str, Any]]]
    budget: Needs
    calibration: int
    epochs: float
    device: str
    workers: int
    skip_broken: bool

    @property
    def name(self) -> str:
        """Return what the model is called in the results."""
        return _name(self.model)

    @property
    def track(self) -> str:
        """Return what the images are called in the results."""
        return _name(self.images.resolve().name)


def _name(text: str) -> str:
    found = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return found if found[:1].isalpha() else f"x_{found}"


def methods_of(
    named: Iterable[str], every: bool, budget: Needs, defaults: Params
) -> dict[str, Any]:
    """Return the methods and settings of a trial: those named as `gptq` or
    `gptq:bits=4,percdamp=0.1`, or else all of the budget class or the usual few; raise
    UserError for a budget, a method or a setting that there is not.
    """
    if budget not in CLASSES:
        raise unknown("budget", budget, CLASSES)
    found: dict[str, list[dict[str, Any]]] = {}
    for text in named:
        name, setting = _read(text)
        usual = defaults.plans[name].settings if name in defaults.plans else [{}]
        found.setdefault(name, []).extend(usual if setting is None else [setting])
    if found:
        return found
    if not every and budget == "calibration":
        return {name: plan.settings for name, plan in defaults.trial.items()}
    return {
        name: plan.settings
        for name, plan in defaults.methods.items()
        if CLASSES.index(registry.load(name).needs) <= CLASSES.index(budget)
    }


def _read(text: str) -> tuple[str, dict[str, Any] | None]:
    """Return the method and the setting of `name:field=value,field=value`."""
    match = SETTING.fullmatch(text)
    if match is None:
        raise UserError(f"method '{text}' is not written as name or name:field=value,field=value")
    name, fields = match.groups()
    registry.load(name)
    if fields is None:
        return name, None
    pairs = [pair.partition("=") for pair in fields.split(",")]
    if any(not value for _, _, value in pairs):
        raise UserError(f"method '{text}': a setting is written field=value")
    setting = {field: yaml.safe_load(value) for field, _, value in pairs}
    registry.configure(name, setting)
    return name, setting


def experiment(asked: Asked, defaults: Params) -> Params:
    """Return the experiment of a trial: one track, its methods with dense first, and the
    default hardware at one image, at the version of `defaults`; each worker may have its
    share of the memory.

    Raises UserError for a model that timm does not know, and a device that there is not.
    """
    register()
    if not timm.is_model(asked.model):
        raise unknown("timm model", asked.model, timm.list_models())
    first = next(iter(defaults.tracks.values()))
    recipe = _recipe(first.fine_tune, asked.epochs)
    data = {"folder": str(asked.images.resolve()), "skip_broken": asked.skip_broken}
    if asked.classes is not None:
        data["classes"] = str(asked.classes.resolve())
    track = {
        "dataset": "image_folder",
        "data": data,
        "calibration": asked.calibration,
        "augment": {"flip": 0.5},
        "device": asked.device,
        "seeds": [0],
        "seconds": 24 * 3600,
        "scratch": recipe,
        "fine_tune": recipe,
        "models": {asked.name: {"timm": asked.model, "weights": asked.weights}},
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
            settings[name] += [one for one in plan.settings if one not in settings[name]]
        return {name: MethodPlan(settings=found) for name, found in settings.items()}

    return made.model_copy(
        update={
            "methods": both(before.methods, made.methods),
            "chains": both(before.chains, made.chains),
        }
    )


def _recipe(usual: ScheduleParams, epochs: float) -> ScheduleParams:
    return usual.model_copy(update=UNTRAINED if epochs == 0 else {"epochs": epochs})
