"""A timm model at other widths, by one rule for all: the arguments that its class is
constructed with are multiplied by the width where timm's name for them says that they
are widths.

Names alone prove nothing, so what is built is held against the model at hand: at width
1 it must have the same parameters and the same logits, below that so many fewer
parameters that most layers must be narrower.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property, partial
from itertools import islice
from operator import mul
from typing import Any
from unittest import mock

import timm
import torch
from torch import Tensor, nn

from harness.models import register
from leaderboard.records.errors import UserError, one_line

Scale = Callable[[float], float]
ADVICE = "give fresh=, a function of a width in (0, 1] that builds the model"

# Words of the names that timm gives to numbers of channels: embed_dim, stem_chs, ...
WORDS = frozenset("channels chs dim dims features growth hidden intermediate width widths".split())
# Names of such numbers without one of these words, in the records of EfficientNet,
# ByobNet and RegNet.
WHOLE = frozenset("stem_size c w0 wa".split())
# Names with such a word for what is relative to another width, or divides it.
RELATIVE = frozenset("base_width dim_head dim_mul head_dim".split())
# Names for what multiplies widths that are no arguments.
MULTIPLIERS = frozenset("scale widen_factor width width_factor width_mult".split())

# Widths are rounded down to multiples of one of these, the finest with which the model
# can be built: heads, groups and steps of timm's own rounding must divide them.
MULTIPLES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256)
# With all layers narrower a model keeps between width squared and width of its
# parameters, with only some narrower more: it must lose this share of 1 - width.
LOST = 0.6
TOLERANCE = 1e-3  # of the largest logit: two builds of one network on one device
# What constructors and layers raise at a width that they cannot have.
IMPOSSIBLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def is_width(name: str) -> bool:
    """Say whether an argument of that name is a number of channels in timm."""
    words = set(name.split("_"))
    known = name in WHOLE or bool(words & WORDS)
    return known and "ratio" not in words and not is_multiplier(name) and name not in RELATIVE


def is_multiplier(name: str) -> bool:
    """Say whether an argument of that name multiplies all widths in timm."""
    return name in MULTIPLIERS


def origin(model: nn.Module) -> str | None:
    """Return the name by which timm made `model`, or None if it is not timm's."""
    about = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    name = about.get("architecture") if isinstance(about, Mapping) else None
    register()
    return name if isinstance(name, str) and timm.is_model(name) else None


@dataclass(frozen=True)
class Scaling:
    """The arguments of a class that are `named` so, their values at width 1, and the
    ways to scale values by a width, in the order in which to try them.
    """

    named: Callable[[str], bool]
    values: tuple[float, ...]
    scales: Callable[[tuple[float, ...], float], Iterator[Scale]]


@dataclass(frozen=True)
class Family:
    """Builds a timm model at a width in (0, 1], untrained.

    made_by: what makes timm build it at width 1. kind: its class. scalings: what may
    narrow it. images: (n, C, H, W), which it must tell `classes` apart in.
    """

    name: str
    made_by: Mapping[str, Any]
    kind: type[nn.Module]
    scalings: tuple[Scaling, ...]
    parameters: int
    images: Tensor
    classes: int

    def __call__(self, width: float) -> nn.Module:
        """Build it; raise UserError if that cannot be done below width 1."""
        if width == 1:
            return _created(self.name, self.made_by)
        for scaling in self._narrowing:
            if (model := self._narrow(scaling, width)) is not None:
                return model
        raise UserError(
            f"no arguments of timm's '{self.name}' make it one of width {width:g}: {ADVICE}"
        )

    @cached_property
    def _narrowing(self) -> list[Scaling]:
        """The first way to scale it that halves it, if one does."""
        halving = (one for one in self.scalings if self._narrow(one, 0.5) is not None)
        return list(islice(halving, 1))

    def _narrow(self, scaling: Scaling, width: float) -> nn.Module | None:
        """Return the first model that can be built, runs and is small enough."""
        for scale in scaling.scales(scaling.values, width):
            try:
                with _constructing(self.kind, scaling.named, scale):
                    model = _created(self.name, self.made_by)
                if _parameters(model) > (1 - LOST * (1 - width)) * self.parameters:
                    continue
                logits = _logits(model.to(self.images.device).eval(), self.images)
            except IMPOSSIBLE:
                continue
            if logits.shape == (len(self.images), self.classes):
                return model.train()
        return None


def family(name: str, model: nn.Module, images: Tensor, classes: int) -> Family:
    """Return what builds `model` (eval mode), which takes `images` (N, C, H, W), by
    timm's `name` at any width.

    Raises UserError if timm does not know the name, or if what it builds by it is not
    this model: by the names and shapes of parameters, and by the logits of the same
    weights.
    """
    register()
    if not timm.is_model(name):
        raise UserError(f"timm has no model '{one_line(name)}': {ADVICE}")
    differences: list[str] = []
    errors: list[str] = []
    for arguments in _arguments(name, model, images, classes):
        try:
            built = _created(name, arguments)
            difference = _difference(built, model, images[:2])
        except IMPOSSIBLE as error:
            errors.append(f"timm cannot build it with {arguments}: {one_line(str(error))[:200]}")
            continue
        if difference is None:
            return _family(name, arguments, built, images[:2], classes)
        differences.append(difference)
    raise UserError(
        f"timm's '{name}' is not the model at hand: {[*differences, *errors][0]}: {ADVICE}"
    )


def _family(
    name: str, made_by: Mapping[str, Any], built: nn.Module, images: Tensor, classes: int
) -> Family:
    kind = type(built)
    scalings = tuple(
        Scaling(named, _values(name, made_by, kind, named), scales)
        for named, scales in ((is_width, _roundings), (is_multiplier, _multiplied))
    )
    return Family(name, made_by, kind, scalings, _parameters(built), images, classes)


def _arguments(
    name: str, model: nn.Module, images: Tensor, classes: int
) -> Iterator[dict[str, Any]]:
    """Yield the arguments that may make timm build `model`: those that it was made
    with, as far as timm notes them, with and without its pooling and the size of the
    images, which not every model takes.
    """
    noted = getattr(model, "_model_args", {}) if origin(model) == name.split(".")[0] else {}
    arguments = {**noted, "num_classes": classes, "in_chans": images.shape[1]}
    size = {"img_size": tuple(images.shape[2:])}
    pools = (getattr(part, "global_pool", None) for part in (getattr(model, "head", None), model))
    pooling = [
        {"global_pool": kind}
        for kind in (getattr(pool, "pool_type", pool) for pool in pools)
        if isinstance(kind, str)
    ]
    for known in (*pooling[:1], {}):
        yield arguments | known | size
        yield arguments | known


def _created(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    return model


def _difference(built: nn.Module, model: nn.Module, images: Tensor) -> str | None:
    """Say how `built`, which gets the weights of `model`, differs from it, or None."""
    there, here = (
        {name: tuple(tensor.shape) for name, tensor in one.named_parameters()}
        for one in (built, model)
    )
    for name in [*here, *there]:
        if there.get(name) != here.get(name):
            return (
                f"parameter {name} is {here.get(name, 'missing')} here and "
                f"{there.get(name, 'missing')} in timm's"
            )
    built.load_state_dict(model.state_dict())
    expected = _logits(model, images)
    found = _logits(built.to(images.device).eval(), images)
    same = found.shape == expected.shape and bool(
        (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    )
    return None if same else "with the same weights timm's returns other logits"


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = model(images)
    return logits


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _values(
    name: str, arguments: Mapping[str, Any], kind: type[nn.Module], named: Callable[[str], bool]
) -> tuple[float, ...]:
    """Return the values at width 1 of all that is `named` so."""
    values: list[float] = []

    def noted(value: float) -> float:
        values.append(value)
        return value

    with _constructing(kind, named, noted):
        _created(name, arguments)
    return tuple(values)


def _roundings(values: tuple[float, ...], width: float) -> Iterator[Scale]:
    """Yield ways to scale `values` by `width`, no two of which give the same: each by
    itself rounded to finer, then to coarser multiples; then all in the very proportion
    in which the smallest of them is rounded.
    """
    smallest = min((value for value in values if value == int(value)), default=1)
    alone = [(width, multiple) for multiple in MULTIPLES]
    together = [
        (_rounded(smallest, width=width, multiple=multiple) / smallest, multiple)
        for multiple in MULTIPLES
    ]
    seen: set[tuple[float, ...]] = {()}
    for share, multiple in alone + together:
        scale = partial(_rounded, width=share, multiple=multiple)
        if (scaled := tuple(map(scale, values))) not in seen:
            seen.add(scaled)
            yield scale


def _multiplied(values: tuple[float, ...], width: float) -> Iterator[Scale]:
    """Yield the way to scale multipliers, if there are `values`: timm rounds."""
    if values:
        yield partial(mul, width)


def _rounded(value: float, *, width: float, multiple: int) -> float:
    """Return `width * value` rounded down to a multiple of as much of `multiple` as
    divides `value`, and not to 0; what is no whole number is not rounded.
    """
    if value != int(value):
        return value * width
    step = math.gcd(int(value), multiple)
    # a third of 3 is 1, whatever floating point makes of it
    steps = max(1, math.floor(value * width / step + 1e-9))
    return type(value)(steps * step)


@contextmanager
def _constructing(
    kind: type[nn.Module], named: Callable[[str], bool], scale: Scale
) -> Iterator[None]:
    """Have models of class `kind` constructed with all that is `named` so scaled: what
    timm's function of a model adds before and after that stays as it is.
    """
    owner = _constructor(kind)
    construct = vars(owner)["__init__"]
    signature = inspect.signature(construct)

    def scaled(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()  # ResNet's channels stand nowhere else
        for name, value in bound.arguments.items():
            bound.arguments[name] = _scaled(name, value, named, scale)
        construct(*bound.args, **bound.kwargs)

    with mock.patch.object(owner, "__init__", scaled):
        yield


def _constructor(kind: type[nn.Module]) -> type[nn.Module]:
    """Return the class that takes the arguments of `kind` by name: itself, unless it
    hands on `*args, **kwargs` to what it is derived from.
    """
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    owners = [owner for owner in kind.__mro__ if "__init__" in vars(owner)]
    for owner in owners:
        _self, *taken = inspect.signature(vars(owner)["__init__"]).parameters.values()
        if any(parameter.kind in by_name for parameter in taken):
            return owner
    return owners[0]


def _scaled(name: str, value: Any, named: Callable[[str], bool], scale: Scale) -> Any:
    """Return the value of the argument `name` with its numbers scaled if it is `named`
    so, or else those of the keys and fields inside of it that are.
    """
    if named(name) and _is_numbers(value):
        return _times(value, scale)
    if is_dataclass(value) and not isinstance(value, type):
        inside = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        return replace(value, **_scaled("", inside, named, scale))
    if isinstance(value, dict):
        return {key: _scaled(str(key), one, named, scale) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_scaled("", one, named, scale) for one in value)
    return value


def _times(value: Any, scale: Scale) -> Any:
    """Return numbers, however deep in lists, scaled; 0 means none in timm and stays."""
    if isinstance(value, (list, tuple)):
        return type(value)(_times(one, scale) for one in value)
    return scale(value) if value > 0 else value


def _is_numbers(value: object) -> bool:
    """Say whether `value` is a number or a list of such: one that mixes them with
    anything else holds more than widths.
    """
    if isinstance(value, (list, tuple)):
        return all(_is_numbers(one) for one in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)
