"""LLM-Drop: remove the attention layers, MLPs or whole blocks that change the direction
of the residual stream least.

He, Sun, Li, "What Matters in Transformers? Not All Attention is Needed", arXiv
2406.15786. The score of a unit is the mean over tokens and images of cos(X, Y), X the
residual stream before and Y = X + f(norm(X)) after it, in the original model on
unlabelled images. The `count` units of highest score go at once, norm and residual
addition included; "joint" ranks attention layers and MLPs together.

ASSUMED: as the paper is about language models, all tokens count alike; in an
MLP-Mixer the token-mixing MLP takes the part of attention; in a CNN a position of the
feature map is a token, the units are blocks with an identity shortcut (ResNet blocks
without downsampling, InvertedResidual with skip), and after a drop the statistics of
batch norms are re-estimated on the calibration images. Ties go to the earlier unit.

Checked against: the authors' scoring rules (layer_drop.py with layer_drop_norm,
block_drop.py), rewritten with hooks on norm and branch in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from methods import Data, Method
from methods.parts.depth.drop import Kind, halved, too_few, units
from methods.parts.network.batchnorm import has_batchnorm, recalibrate


def cosine(X: Tensor, Y: Tensor) -> Tensor:
    """Return cos(X, Y) over the channels of each token (B, N, C) or position (B, C, H,
    W), in float32.
    """
    return cosine_similarity(X.float(), Y.float(), dim=1 if X.ndim == 4 else -1)


@torch.no_grad()
def similarity(model: nn.Module, units: list[str], images: Tensor) -> Tensor:
    """Return the mean cosine of input and output of each of `units` (units,) over all
    tokens of `images`.
    """
    total = torch.zeros(len(units), device=images.device)

    def hook(number: int) -> Callable[..., None]:
        def add(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            total[number] += cosine(args[0], output).flatten(1).mean(1).sum()

        return add

    handles = [
        model.get_submodule(name).register_forward_hook(hook(number))
        for number, name in enumerate(units)
    ]
    try:
        for batch in images.split(128):
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return total / len(images)


def most_similar(s: Tensor, count: int) -> list[int]:
    """Return the indices of the `count` highest of `s`; ties go to the lower index."""
    return sorted(s.sort(descending=True, stable=True).indices[:count].tolist())


@dataclass(frozen=True)
class BlockDrop(Method):
    """Drop the `count` most redundant units of a kind."""

    unit: Kind = "attention"
    count: Annotated[int, Field(ge=0)] = 1

    family = "depth"
    paper = "He et al. 2024, arXiv 2406.15786"
    needs = "calibration"
    identity = {"unit": "block", "count": 0}
    strongest = {"unit": "block", "count": 4}

    def skip(self, model: nn.Module) -> str | None:
        return too_few(model, self.unit, self.count)

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.count == 0:
            return model
        names, images = units(model, self.unit), data.calibration
        halved(model, names, self.unit)
        for index in most_similar(similarity(model, names, images), self.count):
            model.set_submodule(names[index], nn.Identity())
        if has_batchnorm(model):
            recalibrate(model, images)
        return model
