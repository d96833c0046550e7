"""Choosing exactly k entries, and the one-shot masked pruning that the unstructured
methods share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data
from methods.parts.network.batchnorm import has_batchnorm, recalibrate

Sparsity = Annotated[float, Field(ge=0, lt=1)]
Passes = Annotated[int, Field(ge=0, le=10)]


def lowest(score: Tensor, k: int) -> Tensor:
    """Return a bool mask of `score`'s shape that marks its k lowest entries; ties go to
    the lower flat index.
    """
    mask = torch.zeros(score.numel(), dtype=torch.bool, device=score.device)
    mask[score.flatten().sort(stable=True).indices[:k]] = True
    return mask.view(score.shape)


def smallest(weights: Mapping[str, Tensor], s: float) -> dict[str, Tensor]:
    """Mark the round(s n) smallest |w| of all n weights, by layer; ties go to the
    earlier layer, then the lower flat index.
    """
    flat = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    parts = lowest(flat, round(s * flat.numel())).split(
        [weight.numel() for weight in weights.values()]
    )
    return {
        name: part.view(weight.shape)
        for (name, weight), part in zip(weights.items(), parts, strict=True)
    }


@torch.no_grad()
def zero(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights of the named layers to zero where their mask is True."""
    for name, mask in masks.items():
        layer = model.get_submodule(name)
        layer.weight.masked_fill_(mask, 0.0)  # type: ignore[operator, union-attr]


def recover(model: nn.Module, data: Data, bn_passes: int) -> nn.Module:
    """Re-estimate BatchNorm statistics on `bn_passes` passes of the calibration images,
    where there are any; return `model`.
    """
    if bn_passes and has_batchnorm(model):
        recalibrate(model, torch.cat([data.calibration for _ in range(bn_passes)]))
    return model


def no_norms(model: nn.Module, bn_passes: int) -> str | None:
    """Say that a setting without re-estimation repeats the one with it, on a model
    without BatchNorm.
    """
    return (
        "no BatchNorm to re-estimate: bn_passes=0 is the same as the default"
        if bn_passes == 0 and not has_batchnorm(model)
        else None
    )
