"""SparseGPT: zero a layer's weights column by column and let the columns that follow
make up for each, as the second moment of the inputs says.

Frantar, Alistarh, "SparseGPT: Massive Language Models Can be Accurately Pruned in
One-Shot", ICML 2023, arXiv 2301.00774.

H = 2/N sum x x^T is the second moment of the N inputs x of a layer (of a convolution:
its unfolded windows), damped: to its diagonal the share `percdamp` of the diagonal's
mean is added. U is the upper Cholesky factor of its inverse.

The weight w, one row per output, is worked through in blocks of 128 columns. At the
start of each block the weights that cost least in the whole block are marked. The cost
of the weight in row i and column j is

    w_ij^2 / U_jj^2

With `m` the choice is made among each m consecutive columns of a row instead, when
these columns are reached. Then, column by column, the marked weights are zeroed, which
turns column w_j into q_j, and all columns after it make up for the error:

    e_j = (w_j - q_j) / U_jj,  w_k -= e_j U_jk for all k > j

`methods/parts/quantization/columns.py` computes the same without U.

Counts are exact. Up to the end c of each block round(s rows c) weights of a layer are
marked; with `m` floor(s r) weights of a row in each group of r <= m columns, the last
of which may be short. Ties go to the lower row, then to the lower column. Weights of
inputs that are always 0 cost nothing and go first.

Layers are done one at a time in order of execution, each on inputs that come from
everything before it already pruned. Batch norms keep their statistics until the end,
when they are re-estimated.

Arguments:
    sparsity: s, the share of each layer's weights that becomes zero; with `m` that of
        each m consecutive weights of a row, and s m must be a whole number
    m: M of an N:M pattern, which holds in each m consecutive weights of a row: 2:4 is
        sparsity 0.5 with m = 4, 4:8 the same with m = 8; None sets no pattern
    percdamp: what is added to the diagonal of H, as a share of the diagonal's mean
    bn_passes: passes over the calibration images by which the statistics of batch norms
        are re-estimated at the end (a convention of this benchmark); 0 leaves them

Assumed:
    - All calibration images are used.
    - Moments are in float64.
    - m of a convolution groups its weights in the order (in, kh, kw), as the released
      code would.
    - Deviation: the exact count; the released code marks one weight more per block.
    - Deviation: weights of inputs that are always 0 count towards the budget; in the
      released code all of them go, beyond the budget, too.
    - Deviation: each layer sees the layers before it pruned; the authors' script
      collects the moments of all layers of a block before it prunes them.

Checked against:
    - github.com/IST-DASLab/sparsegpt at 147d215, `fasterprune` on the same layers and
      moments (its share set so that its one weight too many falls away), at 50 and 75
      %, 2:4, 4:8 and 1:4. On a Linear of 256 inputs, two of them dead, and a strided
      convolution of 144 inputs: masks equal, weights equal to 4e-6.
    - The same on a Linear of 768 inputs: up to 116 of 196,608 entries of the mask
      differ, ties in its float32 factor, with the layer's error equal to 0.1 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.network.gram import moments
from methods.parts.network.layers import prunable
from methods.parts.network.walk import stages
from methods.parts.pruning.masks import Passes, Sparsity, no_norms, recover
from methods.parts.pruning.row_masks import lowest_per_row
from methods.parts.quantization.columns import BLOCK, by_blocks, by_columns, upper_factor


def prune(w: Tensor, R: Tensor, mask: Tensor) -> Tensor:
    """Return `w` (columns, rows) with the marked weights of mask (rows, columns) zero,
    and what each column makes of those after it.
    """
    return by_columns(w, R, lambda k, w_k: w_k.masked_fill(mask[:, k], 0))


def prune_whole(w: Tensor, R: Tensor, worth: Tensor, k: int) -> Tensor:
    """Zero the `k` weights of a block that cost least, (w_ij worth_j)^2."""
    cost = (w.T * worth).square()
    return prune(w, R, lowest_per_row(cost.reshape(1, -1), k).view_as(cost))


def prune_groups(w: Tensor, R: Tensor, worth: Tensor, zeros: int, m: int) -> Tensor:
    """Zero the `zeros` weights of each row that cost least in each group of `m`
    columns.
    """

    def group(G: slice, w: Tensor) -> Tensor:
        return prune(w, R[G, G], lowest_per_row((w.T * worth[G]).square(), zeros * len(w) // m))

    return by_blocks(w, R, m, group)


def sparsegpt(W: Tensor, H: Tensor, s: float, m: int | None, percdamp: float) -> Tensor:
    """Return Q, W (rows, n) with a share `s` zero, of each `m` consecutive weights of a
    row if given, that keeps tr((W - Q) H (W - Q)^T) small.
    """
    dead = H.diagonal() == 0
    R = upper_factor(H + dead.diag().to(H.dtype), percdamp)  # U^-1
    worth = R.diagonal().masked_fill(dead, 0)  # 1 / U_jj

    def block(B: slice, w: Tensor) -> Tensor:
        if m is not None:
            return prune_groups(w, R[B, B], worth[B], round(s * m), m)
        return prune_whole(
            w, R[B, B], worth[B], round(s * len(W) * B.stop) - round(s * len(W) * B.start)
        )

    return by_blocks(W.detach().T.contiguous(), R, BLOCK - BLOCK % (m or 1), block).T


@dataclass(frozen=True)
class SparseGPT(Method):
    """Zero the share `sparsity` of each layer, or of each `m` consecutive weights of a
    row, with damping `percdamp` of the mean diagonal.
    """

    sparsity: Sparsity = 0.5
    m: Annotated[int, Field(ge=2, le=BLOCK)] | None = None
    percdamp: Annotated[float, Field(gt=0, le=1)] = 0.01
    bn_passes: Passes = 1

    family = "pruning"
    paper = "Frantar and Alistarh, ICML 2023, arXiv 2301.00774"
    needs = "calibration"
    realisation = "masked"
    identity = {"sparsity": 0.0, "bn_passes": 0}
    strongest = {"sparsity": 0.99}

    def __post_init__(self) -> None:
        if self.m and abs(self.sparsity * self.m - round(self.sparsity * self.m)) > 1e-9:
            raise ValueError(
                f"sparsity {self.sparsity} of m = {self.m} weights is no whole number; take a "
                f"multiple of 1/{self.m}"
            )

    def skip(self, model: nn.Module) -> str | None:
        return no_norms(model, self.bn_passes)

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        for stage in stages(model, prunable(model), data.calibration):
            for name, layer in stage.layers.items():
                H = moments(stage.module, {name: layer}, stage.inputs)[name]
                Q = sparsegpt(layer.weight.flatten(1), H, self.sparsity, self.m, self.percdamp)
                with torch.no_grad():
                    layer.weight.copy_(Q.view_as(layer.weight))
        return recover(model, data, self.bn_passes)
