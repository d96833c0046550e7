"""Choosing the same number of entries in every row of a score, and Wanda's score:
shared by the methods that prune row by row or N of M.
"""

from __future__ import annotations

from math import floor

import torch
from torch import Tensor


def lowest_per_row(score: Tensor, k: int) -> Tensor:
    """Return a bool mask that marks the k lowest entries of each row of `score` (rows,
    columns); ties go to the lower index.
    """
    if k == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    threshold = score.kthvalue(k, 1, keepdim=True).values
    below, tied = score < threshold, score == threshold
    return below | (tied & (tied.cumsum(1) <= k - below.sum(1, keepdim=True)))


def wanda_mask(W: Tensor, norm: Tensor, s: float) -> Tensor:
    """Mark the floor(s n) lowest |W_ij| norm_j of each row of W (rows, n); norm (n,) is
    that of each input feature (Sun et al., arXiv 2306.11695).
    """
    return lowest_per_row(W.abs() * norm, floor(s * W.shape[1]))
