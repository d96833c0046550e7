"""Compress an image classifier, and measure what that is worth: the benchmark's methods
and rulers on your own model and images.

>>> import torch
>>> from torch import nn
>>> convolutions = nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3)
>>> model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))
>>> images, labels = torch.rand(40, 3, 16, 16), torch.arange(40) % 4
>>> small = compress(model, "rtn", images, bits=4)
>>> row = measure(small, dense=model, images=images, labels=labels)
>>> bool(row["compression_ratio"] > 4), bool(row["theoretical_speedup"] == 1)
(True, True)
>>> pair, named = (images, labels), ["rtn:bits=8", "tome:r=4"]
>>> try_methods(model, train=pair, test=pair, methods=named)["method"].tolist()
['dense', 'rtn', 'tome']
>>> methods(model).loc["tome", "skipped"]
'not a vision transformer: it has no tokens that attend to each other'

Bad arguments raise ValueError with one line that says what to do. `python -m
shrinkmark` is the command `shrinkmark`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any


def _check_packages() -> None:
    """Raise ImportError if something else is imported in place of one of our packages,
    such as a folder `methods` of the user's.
    """
    for name in ("harness", "leaderboard", "methods"):
        spec = find_spec(name)
        found = spec and (spec.origin or next(iter(spec.submodule_search_locations or ()), None))
        if Path(found or "").resolve() != Path(__file__).resolve().parent / name / "__init__.py":
            raise ImportError(
                f"shrinkmark's package '{name}' is hidden by {found}: rename that, or run from "
                "another folder"
            )


try:
    _check_packages()
except ImportError as error:
    if __name__ != "__main__":
        raise
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

# imported when they are needed, so that the command's help does not wait for torch
if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from harness.own.images import Images
    from methods import Method


def compress(
    model: nn.Module,
    method: str | Method,
    images: Images,
    *,
    labels: Tensor | None = None,
    train: tuple[Tensor, Tensor] | Images | None = None,
    epochs: float = 1,
    fresh: Callable[[float], nn.Module] | str | None = None,
    seed: int = 0,
    **setting: Any,
) -> nn.Module:
    """Return `model` compressed by `method`, a name with its `setting` or a configured
    method; in eval mode, on the device of `model`, which is not changed.

    images: (N, C, H, W) as the model takes them, or a DataLoader: what methods
    calibrate on; labels: (N,), for methods that need them. train: a pair of images and
    labels, or a loader of such pairs, to train on for `epochs`, by default `images`
    with `labels`. fresh: builds the model at a width in (0, 1], untrained, for methods
    that train a narrower or fresh network; or the name by which timm does, which a
    model that timm made carries itself. Budgets are fields of the method: `sparsity`,
    `macs`, `bits` (see `methods`).
    """
    from harness.own import compressing

    budget = compressing.Budget(labels, train, epochs, fresh, seed)
    return compressing.compress(model, compressing.configured(method, setting), images, budget)


def measure(
    compressed: nn.Module, *, dense: nn.Module, images: Images, labels: Tensor | None = None
) -> pd.Series:
    """Return what `compressed` is worth beside `dense` in the tables' columns: accuracy
    and difference with intervals, bytes, MACs, latency, speed-up.
    """
    from harness.own.measuring import measured

    return measured(compressed, dense, images, labels)


def try_methods(
    model: nn.Module,
    *,
    train: tuple[Tensor, Tensor] | Images,
    test: tuple[Tensor, Tensor] | Images,
    methods: Sequence[str] = (),
    calibration: int = 64,
    epochs: float = 1,
    fresh: Callable[[float], nn.Module] | str | None = None,
    seed: int = 0,
    into: str | Path | None = None,
) -> pd.DataFrame:
    """Return a row a method and setting, dense first, in the columns of `measure`; a
    `note` says why a method has none.

    methods: as `gptq` (at its usual settings) or `gptq:bits=4`; by default the few that
    `shrinkmark try` runs. train: images (or a pair with labels, or a loader), of which
    `calibration` are calibrated on and all trained on where a method trains; test:
    others, with labels. into: a folder for the compressed models, each as `save` writes
    it. epochs, fresh, seed: see `compress`.
    """
    from harness.own import trying

    folder = None if into is None else Path(into)
    what = trying.Tried(trying.asked(methods), calibration, epochs, fresh, seed, folder)
    return trying.tried(model, train, test, what)


def save(compressed: nn.Module, folder: str | Path) -> None:
    """Write a model that `compress` returned into `folder`: `program.pt2`, which runs
    with torch alone, and `weights.safetensors`, whose bytes are counted.
    """
    from harness.own import stored

    stored.save(compressed, Path(folder))


def load(folder: str | Path) -> nn.Module:
    """Read back what `save` wrote: a module for inference that takes any batch and
    moves with `.to()`.
    """
    from harness.own import stored

    return stored.load(Path(folder))


def methods(model: nn.Module) -> pd.DataFrame:
    """Return a row a method: its `family`, what it `needs`, how its saving exists, and
    at its default setting why it does not handle `model` (or "").
    """
    from harness.own.compressing import handled

    return handled(model)


if __name__ == "__main__":
    from harness.cli.command import main

    main()
