"""Which residual units of a timm model can be left out, and transformer and mixer
blocks as two units each.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

from timm.models._efficientnet_blocks import InvertedResidual
from timm.models.mlp_mixer import MixerBlock
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.vision_transformer import Block
from torch import Tensor, nn

Kind = Literal["attention", "mlp", "block", "joint"]
SUBLAYERS = {"attention": ("attention",), "mlp": ("mlp",), "joint": ("attention", "mlp")}


class Residual(nn.Sequential):
    """A branch (norm, f, scale, ...) with its residual addition: x + branch(x)."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + super().forward(x)
        return y


class Transposed(nn.Module):
    """`inner` applied along the tokens of x (B, N, C)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x.transpose(1, 2)).transpose(1, 2)
        return y


def halves(block: Any) -> nn.Sequential:
    """Return a transformer or mixer block as its two residual units in series,
    `attention` and `mlp`; the same function.
    """
    if isinstance(block, MixerBlock):
        attention = Residual(block.norm1, Transposed(block.mlp_tokens), block.drop_path)
        mlp = Residual(block.norm2, block.mlp_channels, block.drop_path)
    else:
        attention = Residual(block.norm1, block.attn, block.ls1, block.drop_path1)
        mlp = Residual(block.norm2, block.mlp, block.ls2, block.drop_path2)
    return nn.Sequential(OrderedDict(attention=attention, mlp=mlp))


def droppable(module: Any) -> bool:
    """Say whether `module` is a block that may be left out whole: its shortcut is the
    identity.
    """
    if isinstance(module, (BasicBlock, Bottleneck)):
        return module.downsample is None
    return isinstance(module, (Block, MixerBlock)) or (
        isinstance(module, InvertedResidual) and bool(module.has_skip)
    )


def units(model: nn.Module, kind: Kind) -> list[str]:
    """Return the names of the units of a kind, first to last; sub-layers are named as
    `halved` will name them.
    """
    if kind == "block":
        return [name for name, module in model.named_modules() if droppable(module)]
    blocks = [
        name for name, module in model.named_modules() if isinstance(module, (Block, MixerBlock))
    ]
    return [f"{name}.{part}" for name in blocks for part in SUBLAYERS[kind]]


def halved(model: nn.Module, names: list[str], kind: Kind) -> None:
    """Split the blocks that the units `names` stand in, in place, unless those are
    blocks themselves.
    """
    for name in dict.fromkeys(unit.rpartition(".")[0] for unit in names if kind != "block"):
        model.set_submodule(name, halves(model.get_submodule(name)))


def too_few(model: nn.Module, kind: Kind, count: int) -> str | None:
    """Say why `count` units of a kind cannot be dropped from `model`, or None if they
    can.
    """
    found = len(units(model, kind))
    if not found:
        return f"no unit of kind '{kind}' that can be dropped" + (
            "" if kind == "block" else ": drop 'block' in a CNN"
        )
    return (
        f"{count} units of kind '{kind}' asked for, but only {found} can be dropped"
        if count > found
        else None
    )
