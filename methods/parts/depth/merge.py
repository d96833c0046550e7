"""Merging affine maps y = W x + b: two in a row into one, and a diagonal one (batch
normalisation, LayerScale) into the one before it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Affine = tuple[Tensor, Tensor]  # W (out, in) and b (out,), float64


def affine(layer: nn.Linear) -> Affine:
    """Return W and b of `layer` in float64; a missing bias counts as 0."""
    W = layer.weight.detach().double()
    return W, W.new_zeros(len(W)) if layer.bias is None else layer.bias.detach().double()


def merge(first: Affine, second: Affine) -> Affine:
    """Return W2 (W1 x + b1) + b2 as one map: W = W2 W1, b = W2 b1 + b2."""
    (W1, b1), (W2, b2) = first, second
    return W2 @ W1, W2 @ b1 + b2


def scaled(first: Affine, s: Tensor, t: Tensor) -> Affine:
    """Return s (W x + b) + t, row by row, as one map: W' = diag(s) W, b' = s b + t. A
    LayerScale has s = gamma and t = 0.
    """
    W, b = first
    return s.double()[:, None] * W, s.double() * b + t.double()


def normalisation(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Return (s, t) of `norm` in eval mode: s = gamma / sqrt(var + eps), t = beta - s
    mean, in float64.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    s = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return s, norm.bias.detach().double() - s * norm.running_mean.double()
