"""A method run on somebody's own model."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from harness.models import widths
from harness.own.errors import value_errors
from harness.own.images import Images, classes_of, device_of, given
from harness.own.own_data import OwnData, learnt
from harness.run import registry
from leaderboard.records.errors import UserError
from methods import Method, Split

# attribute of a compressed model: the shape (C, H, W) of what it takes
IMAGES = "shrinkmark_images"
WITH_LABELS = ("labels", "fine-tune", "scratch")  # budget classes


@dataclass(frozen=True)
class Budget:
    """What a method may use beside images: labelled images to train on, epochs of
    training, fresh networks by width (or the name that timm builds them by), and the
    seed.
    """

    labels: Tensor | None
    train: tuple[Tensor, Tensor] | Images | None
    epochs: float
    fresh: Callable[[float], nn.Module] | str | None
    seed: int


def configured(method: str | Method, setting: Mapping[str, Any]) -> Method:
    """Return the method at its setting; raise ValueError for a name or a setting that
    there is not, or a setting beside a configured method.
    """
    if isinstance(method, Method):
        if setting:
            raise ValueError(
                f"{type(method).__name__} is configured already: set {', '.join(setting)} where "
                "it is made"
            )
        return method
    with value_errors():
        return registry.configure(method, dict(setting))


def compress(model: nn.Module, method: Method, images: Images, budget: Budget) -> nn.Module:
    """Return `model` compressed by `method`, in eval mode on the device of `model`,
    which is left as it is.

    Raises ValueError if the method skips the model or needs what the budget lacks, or
    if the model is no classifier of such images.
    """
    device, private = device_of(model), copy.deepcopy(model).eval()
    seen = given(images, budget.labels, device, "images")
    classes = classes_of(private, seen.images)
    if (reason := method.skip(copy.deepcopy(private))) is not None:
        raise ValueError(f"{type(method).__name__} does not handle this model: {reason}")
    labelled = _labelled(
        budget, None if seen.labels is None else Split(seen.images, seen.labels), device
    )
    if method.needs in WITH_LABELS and labelled is None:
        raise ValueError(
            f"{type(method).__name__} needs labels ({method.needs}): give labels= of the images, "
            "or train=(images, labels)"
        )
    learn = learnt(seen.images, labelled)
    with value_errors(), _own_randomness(budget.seed, device):
        fresh = None
        if method.needs == "scratch":
            fresh = _fresh(budget.fresh, private, seen.images, classes)
        data = OwnData(learn, budget.epochs, fresh, budget.seed, method.needs)
        compressed = method.compress(private, data)
    compressed.eval().to(device)
    if classes_of(compressed, seen.images) != classes:
        raise ValueError(
            f"{type(method).__name__} returned a model of other classes than the {classes} of the "
            "model: fresh= must build it with as many"
        )
    setattr(compressed, IMAGES, tuple(seen.images.shape[1:]))
    return compressed


def _labelled(budget: Budget, images: Split | None, device: torch.device) -> Split | None:
    """Return what is trained on: `train` of the budget, or else the images if they have
    labels.
    """
    if budget.train is None:
        return images
    images_of, labels = budget.train if isinstance(budget.train, tuple) else (budget.train, None)
    found = given(images_of, labels, device, "train")
    if found.labels is None:
        raise ValueError(
            "train: it has no labels: give a pair (images, labels), or a loader that yields such "
            "pairs"
        )
    return Split(found.images, found.labels)


def _fresh(
    given: Callable[[float], nn.Module] | str | None, model: nn.Module, images: Tensor, classes: int
) -> Callable[[float], nn.Module] | None:
    """Return what builds `model` at a width: `given`, or by the timm name that is given
    or that the model carries; None if there is none.
    """
    name = widths.origin(model) if given is None else given
    return widths.family(name, model, images, classes) if isinstance(name, str) else name


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed all generators for a while, and leave them as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def handled(model: nn.Module) -> pd.DataFrame:
    """Return a row a method, by name: family, needs, realisation, and why the method at
    its default setting does not handle `model` ("" if it does).
    """
    rows: dict[str, tuple[str, str, str, str]] = {}
    for name in registry.names():
        try:
            method = registry.configure(name, {})
            rows[name] = (
                method.family,
                method.needs,
                method.realisation,
                method.skip(copy.deepcopy(model).eval()) or "",
            )
        except UserError as error:
            # of another package, and broken, refused or without a default setting
            rows[name] = ("", "", "", str(error))
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["family", "needs", "realisation", "skipped"]
    )
