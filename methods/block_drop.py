"""LLM-Drop: remove the attention layers, MLPs or whole blocks that change the direction
of the residual stream least.

He, Sun, Li, "What Matters in Transformers? Not All Attention is Needed", 2024, arXiv
2406.15786.

A unit is an attention layer, an MLP or a whole block, each with its residual addition.
Its score says how little it turns the residual stream:

    s = mean over tokens and images of cos(X, Y), with Y = X + f(norm(X))

X is the residual stream before the unit and Y the one after it; f is what the unit
computes. All scores are measured in the original model, on the unlabelled calibration
images. The `count` units of highest score then go at once, norm and residual addition
included. Nothing is trained.

Arguments:
    unit: kind of the units that are ranked: "attention" layers, "mlp", whole "block",
        or "joint", which ranks attention layers and MLPs together; a CNN has only
        blocks
    count: units that are removed; 0 leaves the model as it is

Assumed:
    - The paper is about language models; here all tokens of an image count alike.
    - In an MLP-Mixer the token-mixing MLP takes the part of attention.
    - In a CNN a position of the feature map is a token. The units are blocks with an
      identity shortcut: ResNet blocks without downsampling, InvertedResidual with skip.
    - After a drop in a CNN, the statistics of batch norms are re-estimated on the
      calibration images.
    - Ties go to the earlier unit.

Checked against:
    - The authors' scoring rules (their layer_drop.py with layer_drop_norm, and their
      block_drop.py), rewritten with hooks on norm and branch in the tests: the scores
      of the attention layers of a ViT are equal up to rounding.
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
    """Drop the `count` units of the kind `unit` whose output is most similar to their
    input.
    """

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
