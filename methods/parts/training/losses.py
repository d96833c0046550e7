"""Losses beside cross-entropy on the labels, for methods that train by the one loop all
the same: they ride on the logits that it differentiates.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax


class _Added(torch.autograd.Function):
    """The logits; backward, their gradient times `share` and a gradient of 1 for the
    extra loss.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, extra: Tensor, share: float) -> Tensor:
        ctx.share = share
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        return ctx.share * gradient, gradient.new_ones(()), None


def with_loss(logits: Tensor, extra: Tensor, share: float = 1.0) -> Tensor:
    """Return `logits` (N, classes) such that backward of any loss of them
    differentiates `share` times that loss + `extra` (a float32 scalar).
    """
    result: Tensor = _Added.apply(logits, extra, share)
    return result


def soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(logits / T)), the mean over images
    (Hinton et al. 2015); no gradient reaches `teacher`.
    """
    p, q = (
        log_softmax(teacher.detach().float() / temperature, 1),
        log_softmax(logits.float() / temperature, 1),
    )
    return temperature**2 * kl_div(q, p, reduction="batchmean", log_target=True)
