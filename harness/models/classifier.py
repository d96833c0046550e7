"""What makes a model one that can be compressed and measured: it returns logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leaderboard.records.errors import UserError, one_line

LOGITS = 2  # dimensions


@torch.no_grad()
def classes_of(model: nn.Module, images: Tensor) -> int:
    """Return how many classes `model` (eval mode) tells apart; raise UserError if it is
    no classifier of images (N, C, H, W) like these.
    """
    try:
        logits = model(images[:2])
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
        raise UserError(
            f"the model does not take images of shape {tuple(images.shape[1:])}: "
            f"{one_line(str(error))[:200]}"
        ) from error
    if (
        not isinstance(logits, Tensor)
        or logits.ndim != LOGITS
        or len(logits) != len(images[:2])
        or logits.shape[1] < 2
    ):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(
            "the model is no classifier: give one that returns logits (N, classes) of N images, "
            f"found {found} of {len(images[:2])}"
        )
    if not torch.isfinite(logits).all():
        raise UserError(
            "the model returns NaN or infinity on these images: give images as it takes them, or "
            "another setting"
        )
    return logits.shape[1]
