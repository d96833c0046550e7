"""Which residual units of a timm model can be left out, and transformer and mixer blocks as two units each."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from timm.models._efficientnet_blocks import InvertedResidual
from timm.models.mlp_mixer import MixerBlock
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.vision_transformer import Block
from torch import Tensor, nn


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
    """Return a transformer or mixer block as its two residual units in series, `attention` and `mlp`; the same function."""
    if isinstance(block, MixerBlock):
        attention = Residual(block.norm1, Transposed(block.mlp_tokens), block.drop_path)
        mlp = Residual(block.norm2, block.mlp_channels, block.drop_path)
    else:
        attention = Residual(block.norm1, block.attn, block.ls1, block.drop_path1)
        mlp = Residual(block.norm2, block.mlp, block.ls2, block.drop_path2)
    return nn.Sequential(OrderedDict(attention=attention, mlp=mlp))


def droppable(module: Any) -> bool:
    """Say whether `module` is a block that may be left out whole: its shortcut is the identity."""
    if isinstance(module, (BasicBlock, Bottleneck)):
        return module.downsample is None
    return isinstance(module, (Block, MixerBlock)) or (isinstance(module, InvertedResidual) and bool(module.has_skip))
