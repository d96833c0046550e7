"""Choosing exactly k entries, and the one-shot masked pruning that the unstructured methods share."""

from __future__ import annotations

import torch
from torch import Tensor


def lowest(score: Tensor, k: int) -> Tensor:
    """Return a bool mask of `score`'s shape that marks its k lowest entries; ties go to the lower flat index."""
    mask = torch.zeros(score.numel(), dtype=torch.bool)
    mask[score.flatten().sort(stable=True).indices[:k]] = True
    return mask.view(score.shape)
