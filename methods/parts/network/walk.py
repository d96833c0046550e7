"""The residual blocks of a model one after another, each with the inputs that it gets
from everything before it as that is by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.parts.network.layers import Layer, blocks, visit_inputs

BATCH = 128


@dataclass(frozen=True, eq=False)
class Stage:
    """A residual block, or a layer outside of any.

    layers: those of the layers asked for that stand in it, by their name in the model,
    in order of execution. inputs: (N, ...) what `module` gets, so that
    `visit_inputs(module, layers, inputs, visit)` sees the input rows of each layer.
    """

    module: nn.Module
    layers: dict[str, Layer]
    inputs: Tensor


@torch.no_grad()
def stages(model: nn.Module, layers: Mapping[str, Layer], images: Tensor) -> Iterator[Stage]:
    """Yield the stages of `model` (eval mode) that hold `layers`, in order of
    execution, on `images` (N, C, H, W).

    A stage is made when it is asked for, from the stages before it as they were left:
    changed weights and replaced layers count. Where one block's output is the next
    one's input, as it mostly is, only that block is run. Raises ValueError for a block
    that takes more than one tensor.
    """
    homes: dict[str, dict[str, Layer]] = {}
    visit_inputs(
        model,
        layers,
        images[:1],
        lambda name, _rows: homes.setdefault(_home(model, name), {}).update({name: layers[name]}),
    )
    follows = _follows(model, list(homes), images[:1])
    previous, inputs = "", images
    for name, inside in homes.items():
        if previous and follows[name] == previous:
            last = model.get_submodule(previous)
            inputs = torch.cat([last(batch) for batch in inputs.split(BATCH)])
        else:
            inputs = _inputs(model, model.get_submodule(name), images)
        yield Stage(model.get_submodule(name), inside, inputs)
        previous = name


def _home(model: nn.Module, name: str) -> str:
    """Return the name of the residual block that layer `name` stands in, or its own."""
    return next((block for block in blocks(model) if name.startswith(block + ".")), name)


def _follows(model: nn.Module, names: list[str], image: Tensor) -> dict[str, str]:
    """Return which of the modules `names` made the very tensor, unchanged since, that
    each of them takes; "" if none did.
    """
    outputs: list[tuple[Tensor, int, str]] = []
    found: dict[str, str] = {}

    def seen(name: str, args: tuple[Tensor, ...], output: Tensor) -> None:
        found[name] = next(
            (
                maker
                for tensor, version, maker in outputs
                if tensor is args[0] and tensor._version == version
            ),
            "",
        )
        outputs.append((output, output._version, name))

    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _m, args, output, name=name: seen(name, args, output)
        )
        for name in names
    ]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


class _Seen(Exception):
    """The module has had its input: the rest of the forward pass is not needed."""


def _inputs(model: nn.Module, module: nn.Module, images: Tensor) -> Tensor:
    found: list[Tensor] = []

    def seen(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]) -> None:
        if len(args) != 1 or any(value is not None for value in kwargs.values()):
            raise ValueError(
                f"{type(module).__name__} takes more than one tensor: its inputs cannot be replayed"
            )
        found.append(args[0])
        raise _Seen

    handle = module.register_forward_pre_hook(seen, with_kwargs=True)
    try:
        for batch in images.split(BATCH):
            try:
                model(batch)
            except _Seen:
                continue
    finally:
        handle.remove()
    return torch.cat(found)
