"""Which layers and blocks of a timm model a method works on: the one definition that
all methods share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import cast

import torch
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from timm.models.mlp_mixer import MixerBlock
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.vision_transformer import Block
from torch import Tensor, nn

Layer = nn.Conv2d | nn.Linear
BLOCKS = (BasicBlock, Bottleneck, InvertedResidual, DepthwiseSeparableConv, Block, MixerBlock)


def weighted(model: nn.Module) -> dict[str, Layer]:
    """Return every Conv2d and Linear by name, in order of registration."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Layer)}


def classifier(model: nn.Module) -> set[str]:
    """Return the names of the layers of the classifier: timm's `get_classifier()`, else
    the last Linear.
    """
    layers = weighted(model)
    if not hasattr(model, "get_classifier"):
        return {[name for name, layer in layers.items() if isinstance(layer, nn.Linear)][-1]}
    head = set(cast(Callable[[], nn.Module], model.get_classifier)().modules())
    return {name for name, layer in layers.items() if layer in head}


def stem(model: nn.Module) -> set[str]:
    """Return the names of the layers of the stem: those in the top-level child that
    holds the first layer.
    """
    layers = weighted(model)
    top = next(iter(layers)).split(".")[0]
    return {name for name in layers if name.split(".")[0] == top}


def depthwise(layer: Layer) -> bool:
    """Say whether `layer` is a grouped (in timm: depth-wise) convolution."""
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def prunable(model: nn.Module) -> dict[str, Layer]:
    """Return the layers that post-training methods work on: all but stem, classifier
    and depth-wise convolutions.
    """
    left_out = stem(model) | classifier(model)
    return {
        name: layer
        for name, layer in weighted(model).items()
        if name not in left_out and not depthwise(layer)
    }


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Return the residual blocks by name, first to last."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BLOCKS)}


def by_block(model: nn.Module, layers: Mapping[str, Layer]) -> list[dict[str, Layer]]:
    """Group `layers` by the residual block they stand in, in order; a layer outside of
    any block is a group of its own.
    """
    groups: dict[str, dict[str, Layer]] = {}
    names = list(blocks(model))
    for name, layer in layers.items():
        home = next((block for block in names if name.startswith(block + ".")), name)
        groups.setdefault(home, {})[name] = layer
    return list(groups.values())


def feature_rows(layer: Layer, x: Tensor) -> Tensor:
    """Return the input `x` of `layer` as rows (samples, weight.flatten(1).shape[1]):
    tokens, or unfolded windows of an ungrouped convolution.
    """
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2)
    windows = nn.functional.unfold(
        x,
        cast(tuple[int, int], layer.kernel_size),
        dilation=cast(tuple[int, int], layer.dilation),
        padding=cast(tuple[int, int], layer.padding),
        stride=cast(tuple[int, int], layer.stride),
    )
    return windows.transpose(1, 2).flatten(0, 1)


class _AllSeen(Exception):
    """Every layer asked for has had its input: the rest of the forward pass is not
    needed.
    """


@torch.no_grad()
def visit_raw(
    model: nn.Module,
    layers: Mapping[str, Layer],
    images: Tensor,
    visit: Callable[[str, Tensor], None],
) -> None:
    """Run `images` through `model` in batches of 128, as far as needed, and call
    `visit(name, x)` with the input x of each of `layers` as it comes.
    """
    missing: set[str] = set()

    def seen(name: str, x: Tensor) -> None:
        visit(name, x)
        missing.discard(name)
        if not missing:
            raise _AllSeen

    handles = [
        layer.register_forward_pre_hook(lambda _layer, args, name=name: seen(name, args[0]))
        for name, layer in layers.items()
    ]
    try:
        for batch in images.split(128):
            missing.update(layers)
            with contextlib.suppress(_AllSeen):
                model(batch)
    finally:
        for handle in handles:
            handle.remove()


def visit_inputs(
    model: nn.Module,
    layers: Mapping[str, Layer],
    images: Tensor,
    visit: Callable[[str, Tensor], None],
) -> None:
    """As `visit_raw`, the input as rows (samples, weight.flatten(1).shape[1]); see
    `feature_rows`.
    """
    visit_raw(model, layers, images, lambda name, x: visit(name, feature_rows(layers[name], x)))
