"""GPTQ of one layer, which the methods of its family share: columns rounded one by one
to the grids of round-to-nearest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from methods import Codes
from methods.parts.quantization.columns import BLOCK, by_blocks, by_columns, upper_factor
from methods.parts.quantization.quantize import Grid, Rule, as_codes


def gptq(W: Tensor, H: Tensor, how: Rule, percdamp: float) -> Codes:
    """Return codes of `W` (m, n) by Algorithm 1 (see `columns`), which keeps tr((W - Q)
    H (W - Q)^T) small; a column whose input is always 0 becomes 0.

    H (n, n) float64. Grids per channel are fitted once to the original W; a group of
    columns is a block, and its grid is fitted to what errors before have made of it.
    """
    W, dead = W.detach(), H.diagonal() == 0
    R = upper_factor(H + dead.diag().to(H.dtype), percdamp)  # Cholesky(H^-1)^T is R^-1
    grouped = how.group < W.shape[1]
    grids = [] if grouped else [how.fit(W, how.bits)]

    def quantize_block(G: slice, W_G: Tensor) -> Tensor:
        if grouped:
            grids.append(how.fit(W_G.T, how.bits))
        return by_columns(W_G, R[G, G], quant(grids[-1]))

    B = how.group if grouped else BLOCK
    Q = by_blocks(W.masked_fill(dead, 0).T.contiguous(), R, B, quantize_block).T
    codes = [grid.encode(part) for grid, part in zip(grids, Q.split(how.group, 1), strict=True)]
    return as_codes(torch.cat(codes, 1), grids, how)


def quant(grid: Grid) -> Callable[[int, Tensor], Tensor]:
    """Return the function that rounds column j (m,) of a weight to `grid`."""
    column = Grid(grid.scale[:, 0], grid.zero[:, 0], grid.top)
    return lambda _j, W_j: column.nearest(W_j)
