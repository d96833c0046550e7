"""A layer as two thinner ones in a row, without anything between them: the matrix W =
weight.flatten(1), m x n, as A B of rank r.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from methods.parts.network.layers import Layer

Pair = tuple[int, int]


def rank(m: int, n: int, rho: float) -> int:
    """Return r = floor(rho m n / (m + n)), at least 1, or 0 where such a pair is no
    smaller than the matrix.
    """
    r = max(1, int(rho * m * n / (m + n)))
    return r if r * (m + n) < m * n else 0


def factors(W: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Return A = U_r S_r^1/2 (m, r) and B = S_r^1/2 V_r^T (r, n) of `W` = U S V^T (m,
    n): A B is the nearest matrix of rank r.
    """
    U, S, Vt = torch.linalg.svd(W, full_matrices=False)
    root = S[:r].sqrt()
    return U[:, :r] * root, root[:, None] * Vt[:r]


def filled(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    """Return `layer` with this `weight` and `bias`."""
    layer.weight, layer.bias = (
        nn.Parameter(weight.contiguous()),
        None if bias is None else nn.Parameter(bias),
    )
    return layer


def pair(layer: Layer, A: Tensor, B: Tensor, b: Tensor | None) -> nn.Sequential:
    """Return y = A (B x) + b with A (m, r), B (r, n) and b (m,) in the place of
    `layer`, a Linear or an ungrouped Conv2d.

    A convolution (m, I, kh, kw) becomes kh x kw from I to r channels, with its stride,
    padding and dilation, then 1 x 1 from r to m.
    """
    (m, r), n = A.shape, B.shape[1]
    if isinstance(layer, nn.Linear):
        return nn.Sequential(
            filled(nn.Linear(n, r, bias=False), B, None), filled(nn.Linear(r, m, bias=False), A, b)
        )
    I, kh, kw = layer.weight.shape[1:]  # noqa: E741
    stride, padding, dilation = (
        cast(Pair, layer.stride),
        cast(Pair, layer.padding),
        cast(Pair, layer.dilation),
    )
    first = nn.Conv2d(I, r, (kh, kw), stride, padding, dilation, bias=False)
    return nn.Sequential(
        filled(first, B.view(r, I, kh, kw), None),
        filled(nn.Conv2d(r, m, 1, bias=False), A.view(m, r, 1, 1), b),
    )
