"""Merging convolutions, in float64: batch norm into the convolution before it, two in a
row, a shortcut or parallel branch; and residual blocks with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from math import prod
from typing import Any, cast

import torch
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, pad

from methods.parts.depth.merge import normalisation, scaled

CONVS: dict[type[nn.Module], tuple[str, ...]] = {
    BasicBlock: ("conv1", "conv2"),
    Bottleneck: ("conv1", "conv2", "conv3"),
    InvertedResidual: ("conv_pw", "conv_dw", "conv_pwl"),
    DepthwiseSeparableConv: ("conv_dw", "conv_pw"),
}


@dataclass(frozen=True, eq=False)
class Kernel:
    """A convolution y = W * x + b with zero padding: W (out, in, k, k), b (out,),
    float64; depthwise: W, dense all the same, is diagonal over channels.
    """

    W: Tensor
    b: Tensor
    stride: int
    padding: int
    depthwise: bool


def kernel(conv: nn.Conv2d) -> Kernel:
    """Return `conv` with its groups expanded to a dense kernel; a missing bias counts
    as 0.
    """
    W, g = conv.weight.detach().double(), conv.groups
    dense = (
        torch.einsum(
            "goikl,gh->gohikl",
            W.unflatten(0, (g, -1)),
            torch.eye(g, dtype=W.dtype, device=W.device),
        )
        .flatten(2, 3)
        .flatten(0, 1)
    )
    b = W.new_zeros(len(W)) if conv.bias is None else conv.bias.detach().double()
    return Kernel(
        dense,
        b,
        conv.stride[0],
        cast(tuple[int, int], conv.padding)[0],
        g == conv.in_channels == conv.out_channels,
    )


def convolution(merged: Kernel, like: Tensor) -> nn.Conv2d:
    """Return `merged` as a layer with the type and device of `like`, depth-wise again
    if it is.
    """
    W = (
        merged.W.diagonal(dim1=0, dim2=1).permute(2, 0, 1)[:, None]
        if merged.depthwise
        else merged.W
    )
    (out, channels, k, _), groups = merged.W.shape, len(W) if merged.depthwise else 1
    conv = nn.Conv2d(
        channels,
        out,
        k,
        merged.stride,
        merged.padding,
        groups=groups,
        dtype=like.dtype,
        device=like.device,
    )
    conv.weight, conv.bias = (
        nn.Parameter(W.to(like.dtype).contiguous()),
        nn.Parameter(merged.b.to(like.dtype)),
    )
    return conv


def normalised(first: Kernel, norm: nn.BatchNorm2d) -> Kernel:
    """Return `norm`, in eval mode, after `first` as one: W' = s W, b' = s (b - mean) +
    beta with s = gamma / sqrt(var + eps).
    """
    W, b = scaled((first.W.flatten(1), first.b), *normalisation(cast(Any, norm)))
    return replace(first, W=W.view_as(first.W), b=b)


def compose(first: Kernel, second: Kernel) -> Kernel:
    """Return `second` after `first` as one convolution of size k1 + s1 (k2 - 1) and
    stride s1 s2; ValueError if `second` pads, since that is none.

    W[o, i, u] = sum over m, v of W2[o, m, v] W1[m, i, u - s1 v] and b = b2 + W2 summed
    over v times b1.
    """
    if second.padding:
        raise ValueError(
            f"the second of two convolutions pads by {second.padding}: no one convolution equals "
            "them; move its padding to the first"
        )
    W = conv_transpose2d(second.W, first.W, stride=first.stride)
    b = second.W.sum((2, 3)) @ first.b + second.b
    return Kernel(
        W, b, first.stride * second.stride, first.padding, first.depthwise and second.depthwise
    )


def add_branch(first: Kernel, branch: Kernel) -> Kernel:
    """Return first(x) + branch(x) as one: the smaller kernel `branch` is padded with
    zeros around its centre. ValueError if their outputs do not align.
    """
    margin = first.padding - branch.padding
    if (
        first.stride != branch.stride
        or margin < 0
        or first.W.shape[-1] != branch.W.shape[-1] + 2 * margin
    ):
        raise ValueError(
            "the two branches differ in stride, or their windows are not centred on the same "
            "pixel: they cannot be added"
        )
    return replace(
        first,
        W=first.W + pad(branch.W, [margin] * 4),
        b=first.b + branch.b,
        depthwise=first.depthwise and branch.depthwise,
    )


def identity(channels: int, like: Tensor) -> Kernel:
    """Return the identity on `channels` channels as a depth-wise kernel of size 1: as a
    branch it adds 1 at [i, i, centre, centre].
    """
    eye = torch.eye(channels, dtype=torch.float64, device=like.device)
    return Kernel(eye[:, :, None, None], eye.new_zeros(channels), 1, 0, True)


@torch.no_grad()
def pointwise(shortcut: nn.Module, channels: int, stride: int, like: Tensor) -> Kernel | None:
    """Return `shortcut` (eval mode) as a kernel of size 1, or None if it is none: what
    it makes of one pixel of each channel, tried on an image.
    """
    if isinstance(shortcut, nn.Identity):
        return identity(channels, like) if stride == 1 else None
    f = deepcopy(shortcut).double()
    one = identity(channels, like)
    b = f(torch.zeros_like(one.W[:1])).flatten()
    found = Kernel((f(one.W).flatten(1) - b).T[:, :, None, None], b, stride, 0, False)
    image = (
        torch.linspace(-1, 1, 25 * channels, dtype=b.dtype, device=b.device)
        .sin()
        .view(1, channels, 5, 5)
    )
    expected, result = conv2d(image, found.W, b, stride), f(image)
    return (
        found
        if result.shape == expected.shape and torch.allclose(result, expected, rtol=0, atol=1e-10)
        else None
    )


def move_padding(convs: Sequence[nn.Conv2d]) -> None:
    """Give all padding of `convs`, one after another, to the first, in place: p = p1 +
    s1 p2 + s1 s2 p3 + ...; sizes stay, borders change.
    """
    total, stride = 0, 1
    for conv in convs:
        total += stride * cast(tuple[int, int], conv.padding)[0]
        stride *= conv.stride[0]
        conv.padding = (0, 0)
    convs[0].padding = (total, total)


@dataclass(frozen=True)
class Segment:
    """Layers start .. end - 1 of a block as one; kept: those whose convolutions stay,
    none if the whole block goes.
    """

    start: int
    end: int
    kept: tuple[int, ...]


class Chain(nn.Module):
    """A residual block spelled out: last(layers(x) + shortcut(x)), a layer being
    convolutions, each with its norm, and an activation.
    """

    def __init__(
        self, layers: Sequence[nn.Sequential], shortcut: nn.Module | None, last: nn.Module
    ) -> None:
        super().__init__()
        self.layers: Any = nn.Sequential(*layers)
        self.shortcut, self.last = shortcut, last

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        result: Tensor = self.last(y if self.shortcut is None else y + self.shortcut(x))
        return result

    def branch(self) -> Kernel | None:
        """Return the shortcut as a kernel of size 1, or None if there is none or it is
        none.
        """
        convs = [module for module in self.layers.modules() if isinstance(module, nn.Conv2d)]
        like, stride = convs[0].weight, prod(conv.stride[0] for conv in convs)
        return (
            None
            if self.shortcut is None
            else pointwise(self.shortcut, convs[0].in_channels, stride, like)
        )


def chain(block: Any) -> Chain:
    """Spell out a block of timm, layer by layer; its parts are moved over, activations
    out of their norms.
    """
    convs = [getattr(block, name) for name in CONVS[type(block)]]
    norms = [getattr(block, f"bn{number + 1}") for number in range(len(convs))]
    shortcut: nn.Module | None = nn.Identity() if getattr(block, "has_skip", True) else None
    if isinstance(block, (BasicBlock, Bottleneck)):
        *acts, last = [getattr(block, f"act{number + 1}") for number in range(len(convs))]
        shortcut = shortcut if block.downsample is None else block.downsample
    else:
        acts, last = [norm.act for norm in norms[:-1]], nn.Identity()
        for norm in norms:
            norm.act = nn.Identity()
    return Chain(
        [nn.Sequential(*layer) for layer in zip(convs, norms, [*acts, nn.Identity()], strict=True)],
        shortcut,
        last,
    )


def mergeable(block: Any) -> bool:
    """Say whether `block` is nothing but "same" convolutions, batch norms, activations
    and a shortcut that acts on every stride-th pixel by itself.
    """
    extras = [
        getattr(block, part, None) for part in ("aa", "se", "drop_block", "drop_path", "conv_s2d")
    ]
    if (
        type(block) not in CONVS
        or getattr(block, "has_pw_act", False)
        or not all(part is None or isinstance(part, nn.Identity) for part in extras)
    ):
        return False
    spelled = chain(deepcopy(block))
    plain = all(
        type(conv) is nn.Conv2d and same(conv) and isinstance(norm, nn.BatchNorm2d)
        for conv, norm, _ in spelled.layers
    )
    return plain and (spelled.shortcut is None or spelled.branch() is not None)


def same(conv: nn.Conv2d) -> bool:
    """Say whether `conv` has a square kernel of odd size k, k // 2 zeros of padding,
    and no dilation.
    """
    k = conv.kernel_size[0]
    return k % 2 == 1 and (conv.kernel_size, conv.padding, conv.dilation, conv.padding_mode) == (
        (k, k),
        (k // 2, k // 2),
        (1, 1),
        "zeros",
    )


def segmented(block: Chain, segments: Sequence[Segment]) -> nn.Module:
    """Return `block` cut into `segments`, not merged yet: what goes is gone, padding
    moved to the first convolution of each; uses `block` up.

    A block that ends with several layers in one segment gets an activation behind it,
    if it has none.
    """
    if not segments[0].kept:
        return nn.Identity()
    layers = []
    for segment in segments:
        parts = [block.layers[i] for i in segment.kept]
        move_padding([part[0] for part in parts])
        layers.append(
            nn.Sequential(
                *(module for part in parts for module in part[:-1]),
                block.layers[segment.end - 1][-1],
            )
        )
    linear = isinstance(block.last, nn.Identity) and segments[-1].end - segments[-1].start > 1
    return Chain(layers, block.shortcut, deepcopy(block.layers[0][-1]) if linear else block.last)


@torch.no_grad()
def merged(block: nn.Module) -> nn.Module:
    """Return what `segmented` gave (eval mode) with one convolution for each segment; a
    segment that is the whole block takes in the shortcut.
    """
    if not isinstance(block, Chain):
        return block
    # of convolutions, each with its norm
    rows = [list(pairwise(layer))[:-1:2] for layer in block.layers]
    kernels = [
        reduce(compose, [normalised(kernel(conv), norm) for conv, norm in row]) for row in rows
    ]
    branch = block.branch()
    if len(kernels) == 1 and branch is not None:
        kernels = [add_branch(kernels[0], branch)]
    layers = [
        nn.Sequential(convolution(one, layer[0].weight), layer[-1])
        for one, layer in zip(kernels, block.layers, strict=True)
    ]
    return (
        nn.Sequential(layers[0][0], block.last)
        if len(layers) == 1
        else Chain(layers, block.shortcut, block.last)
    )
