"""Uniform quantisation of weights: grids, their ranges, and which layer gets how many
bits; shared by all methods that round weights to a grid.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from methods import Codes
from methods.parts.network.layers import prunable, weighted

KEEP = 32  # bits at which a weight stays float32
OTHERS = 8  # bits of stem, classifier and depth-wise convolutions
SMALLEST, LARGEST = 2.0**-24, 65504.0  # positive float16


@dataclass(frozen=True)
class Grid:
    """One grid a row, the points scale * (code - zero) for code = 0..top; scale, zero:
    (rows, 1), scale exact in float16, zero whole.
    """

    scale: Tensor
    zero: Tensor
    top: int

    def encode(self, w: Tensor) -> Tensor:
        """Return the codes of the grid points nearest to `w` (rows, columns), as
        floats: clip(round(w / scale) + zero, 0, top).
        """
        return ((w / self.scale).round() + self.zero).clamp(0, self.top)

    def nearest(self, w: Tensor) -> Tensor:
        """Return the grid points nearest to `w` (rows, columns); what `Codes.decode`
        gives for `encode(w)`, bit for bit.
        """
        return self.scale * (self.encode(w) - self.zero)


Place = Callable[[Tensor, Tensor, int], Grid]


def asymmetric(lo: Tensor, hi: Tensor, bits: int) -> Grid:
    """Return grids of 2^bits points over [lo, hi] (rows, 1), lo <= 0 <= hi: s = (hi -
    lo) / (2^bits - 1), z = round(-lo / s); s = 1 if hi = lo.
    """
    top = 2**bits - 1
    scale = _float16(torch.where(hi > lo, (hi - lo) / top, 1.0))
    return Grid(scale, (-lo / scale).round().clamp(0, top), top)


def symmetric(lo: Tensor, hi: Tensor, bits: int) -> Grid:
    """Return restricted symmetric grids of 2^bits - 1 points over [-a, a], a = max(-lo,
    hi): s = a / (2^(bits-1) - 1); s = 1 if a = 0.
    """
    half = 2 ** (bits - 1) - 1
    a = torch.maximum(-lo, hi)
    scale = _float16(torch.where(a > 0, a / half, 1.0))
    return Grid(scale, torch.full_like(scale, half), 2 * half)


def _float16(scale: Tensor) -> Tensor:
    return scale.clamp(SMALLEST, LARGEST).half().to(scale.dtype)


def minmax(place: Place, w: Tensor, bits: int) -> Grid:
    """Return the grids that `place` puts over the smallest and largest entry (and 0) of
    each row of `w`.
    """
    return place(w.amin(1, keepdim=True).clamp(max=0), w.amax(1, keepdim=True).clamp(min=0), bits)


def mse(place: Place, w: Tensor, bits: int) -> Grid:
    """Return, for each row of `w`, the grid of least mean |w - nearest(w)|^2.4 among 80
    min-max ranges shrunk by 0, 1, .. 79 %.
    """
    lo, hi = w.amin(1, keepdim=True).clamp(max=0), w.amax(1, keepdim=True).clamp(min=0)
    best = place(lo, hi, bits)
    least = torch.full_like(lo, torch.inf)
    for percent in range(80):
        shrink = 1 - percent / 100
        grid = place(shrink * lo, shrink * hi, bits)
        error = (w - grid.nearest(w)).abs().pow(2.4).mean(1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        best = Grid(
            torch.where(better, grid.scale, best.scale),
            torch.where(better, grid.zero, best.zero),
            grid.top,
        )
    return best


@dataclass(frozen=True)
class Rule:
    """How one layer is quantised: `fit(w, bits)` gives the grids for each group of
    `group` consecutive columns of weight.flatten(1).
    """

    bits: int
    group: int
    fit: Callable[[Tensor, int], Grid]


def rule(bits: int, columns: int) -> Rule:
    """Return the default rule for a weight of `columns` columns.

    8 bits: a symmetric min-max grid per output channel. 3 to 7: an asymmetric MSE grid
    per output channel. 2: the same per group of 64 columns.
    """
    if bits == 8:
        return Rule(bits, columns, partial(minmax, symmetric))
    return Rule(bits, columns if bits > 2 else min(64, columns), partial(mse, asymmetric))


def rules(model: nn.Module, bits: int) -> dict[str, Rule]:
    """Return the rule of every Conv2d and Linear: `bits` for the prunable ones, 8 for
    stem, classifier and depth-wise convolutions.
    """
    inner = prunable(model)
    return {
        name: rule(bits if name in inner else OTHERS, layer.weight[0].numel())
        for name, layer in weighted(model).items()
    }


def round_to_nearest(w: Tensor, how: Rule) -> Codes:
    """Return the codes of `w` (rows, columns), each entry rounded on its own."""
    parts = w.detach().split(how.group, 1)
    grids = [how.fit(part, how.bits) for part in parts]
    return as_codes(
        torch.cat([grid.encode(part) for grid, part in zip(grids, parts, strict=True)], 1),
        grids,
        how,
    )


def as_codes(codes: Tensor, grids: Iterable[Grid], how: Rule) -> Codes:
    """Return `codes` (rows, columns) on `grids`, one per group of columns, in the
    stored types.
    """
    scale, zero = (
        torch.cat(parts, 1)
        for parts in zip(*((grid.scale, grid.zero) for grid in grids), strict=True)
    )
    return Codes(codes.to(torch.uint8), scale.half(), zero.to(torch.uint8), how.bits, how.group)
