"""A narrower dense model of the same family at a budget of multiply-accumulates."""

from __future__ import annotations

from torch import nn

from methods import Data


def widest(data: Data, limit: float) -> nn.Module:
    """Return the widest untrained model of the family with at most `limit` MACs, or the
    narrowest there is.
    """
    low, high = 1, 257  # in 1/256 of the width; low fits or is the narrowest
    while high - low > 1:
        middle = (low + high) // 2
        fits = data.macs(data.narrower(middle / 256).eval()) <= limit
        low, high = (middle, high) if fits else (low, middle)
    return data.narrower(low / 256)
