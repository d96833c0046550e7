"""GPTQ of one layer, which the methods of its family share: columns rounded one by one
to the grids of round-to-nearest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods import Codes
from methods.parts.quantization.columns import BLOCK, by_blocks, by_columns, upper_factor
from methods.parts.quantization.quantize import Grid, Rule, as_codes


def gptq(W: Tensor, H: Tensor, how: Rule, percdamp: float) -> Codes:
    """Return codes of `W` (m, n) that keep tr((W - Q) H (W - Q)^T) small; a column
    whose input is always 0 becomes 0.

    H (n, n) float64. Grids per channel are fitted once to the original W, those of
    groups to what errors before have made of it where the group starts.
    """
    W, columns = W.detach(), W.shape[1]
    dead = H.diagonal() == 0
    R = upper_factor(H + dead.diag().to(H.dtype), percdamp)
    grids = [] if how.group < columns else [how.fit(W, how.bits)]

    def settle(G: slice, w: Tensor) -> Tensor:
        if how.group < columns:
            grids.append(how.fit(w.T, how.bits))
        column = Grid(grids[-1].scale[:, 0], grids[-1].zero[:, 0], grids[-1].top)
        return by_columns(w, R[G, G], lambda _k, w_k: column.nearest(w_k))

    Q = by_blocks(
        W.masked_fill(dead, 0).T.contiguous(),
        R,
        how.group if how.group < columns else BLOCK,
        settle,
    ).T
    codes = [grid.encode(part) for grid, part in zip(grids, Q.split(how.group, 1), strict=True)]
    return as_codes(torch.cat(codes, 1), grids, how)
