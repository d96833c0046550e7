"""Several methods tried on somebody's own model, each beside dense on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from harness.own.compressing import Budget, compress, configured
from harness.own.errors import value_errors
from harness.own.images import Given, Images, device_of, given
from harness.own.measuring import beside
from harness.own.stored import save
from harness.run.methods_named import methods_of
from harness.run.progress import Progress, progress
from leaderboard.records import CARRIED
from leaderboard.records.errors import one_line
from leaderboard.records.params import load_params

Pair = tuple[Tensor, Tensor] | Images
Worth = Callable[[nn.Module], pd.Series]  # measures a compressed model


@dataclass(frozen=True)
class Tried:
    """What is tried: methods with their settings, images to calibrate on at most,
    epochs of training, what builds the model at a width, and the folder for the
    compressed models, if they are to be kept.
    """

    methods: Mapping[str, list[dict[str, Any]]]
    calibration: int
    epochs: float
    fresh: Callable[[float], nn.Module] | str | None
    seed: int
    into: Path | None

    @property
    def names(self) -> list[str]:
        """Return what each is called."""
        return [_name(method, setting) for method, setting in self.pairs()]

    def pairs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each method with each of its settings."""
        for method, settings in self.methods.items():
            for setting in settings:
                yield method, setting


def asked(named: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the methods `named` as `gptq` or `gptq:bits=4`, or else the few that
    `shrinkmark try` runs, with their settings; raise ValueError for what there is not.
    """
    with value_errors():
        return methods_of(
            [named] if isinstance(named, str) else named, False, "calibration", load_params(CARRIED)
        )


def tried(model: nn.Module, train: Pair, test: Pair, what: Tried) -> pd.DataFrame:
    """Return a row a method and setting, dense first: what `measured` says, and a
    `note`, which says why there is nothing where a method does not handle the model or
    fails on it; raise ValueError for images that the model cannot be held against.
    """
    if what.calibration < 1:
        raise ValueError(f"calibration is {what.calibration}: give at least one image")
    for name in what.names:
        if what.into is not None and (what.into / name).exists():
            raise ValueError(f"{what.into / name} is there already: name another folder by into")
    held = _given(test, torch.device("cpu"), "test")
    learn = _given(train, device_of(model), "train")
    labelled = None if learn.labels is None else (learn.images, learn.labels)
    budget = Budget(None, labelled, what.epochs, what.fresh, what.seed)
    seen = _calibration(learn.images, what)

    def small(method: str, setting: dict[str, Any], worth: Worth) -> pd.Series:
        compressed = compress(model, configured(method, setting), seen, budget)
        row = worth(compressed)
        if what.into is not None:
            save(compressed, what.into / _name(method, setting))
        return row

    with (
        beside(model, held.images, held.labels) as worth,
        progress("try", "setting", ["dense", *what.names]) as bar,
    ):
        bar.begun("dense")
        rows = [_said("dense", {}, worth(model), "")]
        bar.ended("dense")
        for method, setting in what.pairs():
            rows.append(_row(method, setting, partial(small, method, setting, worth), bar))
    return pd.DataFrame(rows)


def _given(pair: Pair, device: torch.device, what: str) -> Given:
    images, labels = pair if isinstance(pair, tuple) else (pair, None)
    return given(images, labels, device, what)


def _calibration(images: Tensor, what: Tried) -> Tensor:
    """Draw the images to calibrate on."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(what.seed))
    return images[order[: what.calibration].to(images.device)]


def _row(
    method: str, setting: Mapping[str, Any], made: Callable[[], pd.Series], bar: Progress
) -> pd.Series:
    name = _name(method, setting)
    bar.begun(name)
    note, found = "", pd.Series(dtype=object)
    try:
        found = made()
    except ValueError as error:
        note = str(error)
    except Exception as error:  # of this method on this model: the others go on
        note = f"{type(error).__name__}: {one_line(str(error))}"
    bar.ended(name)
    return _said(method, setting, found, note)


def _said(method: str, setting: Mapping[str, Any], found: pd.Series, note: str) -> pd.Series:
    who = {"method": method, "setting": " ".join(f"{k}={v}" for k, v in setting.items())}
    row: pd.Series = pd.concat([pd.Series(who), found, pd.Series({"note": note})])
    return row


def _name(method: str, setting: Mapping[str, Any]) -> str:
    return "-".join([method, *(f"{key}={value}" for key, value in setting.items())])
