"""GPTQ: round a layer column by column and let the columns not yet rounded make up for each error, as the second moment of the inputs says.

Frantar, Ashkboos, Hoefler, Alistarh, GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers, ICLR 2023, arXiv 2210.17323.
`bits` is the width of the codes of all Conv2d and Linear except stem, classifier and depth-wise convolutions, which are rounded to nearest in 8
bits. Weights only; batch norms are folded first. Grids and ranges are those of RTN, so that the rounding is all that differs: per-channel grids are
fitted once to the original weights, those of groups to the current ones where the group starts.
Defaults: damping of 1 % of the mean diagonal, blocks of 128 columns, columns in their own order (act-order is not offered). ASSUMED: all calibration
images are used; a convolution's inputs are its unfolded windows; layers are done one at a time in order of execution, each on inputs that come from
everything before it already quantised (one pass over the images per layer), where the paper's code lets the layers of a block see the inputs they had
before any of them was quantised; moments are accumulated and factorised in float64; 32 bits mean that the model stays as it is.
Checked against: github.com/IST-DASLab/gptq at 2d65066, `fasterquant` on the same weights, inputs and grids at 2, 3 and 4
bits, per channel and in groups of 64, a Linear with a dead input and a strided convolution: every code equal (its groups as long as its blocks: in a
longer block it fits later groups to weights that lack that block's updates). In the tests: the recursion with explicit inverses that GPTQ speeds up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Codes, Data, Method, Needs, Realisation, store_as_codes
from methods._batchnorm import fold_batchnorms
from methods._layers import Layer, prunable, visit_inputs, weighted
from methods._quantize import KEEP, Rule, as_codes, round_to_nearest, rules


def hessian(model: nn.Module, name: str, layer: Layer, images: Tensor) -> Tensor:
    """Return H = 2/N sum x x^T (n, n) in float64 over the N input rows x that `layer` gets from `images`."""
    n = layer.weight[0].numel()
    total, count = torch.zeros(n, n, dtype=torch.float64, device=layer.weight.device), 0

    def add(_name: str, rows: Tensor) -> None:
        nonlocal count
        count += len(rows)
        total.addmm_(rows.double().T, rows.double())

    visit_inputs(model, {name: layer}, images, add)
    return total.mul_(2 / count)


def inverse_factor(H: Tensor, percdamp: float) -> Tensor:
    """Return the upper triangular U with U^T U = (H + percdamp mean(diag H) I)^-1."""
    damped = H + percdamp * H.diagonal().mean() * torch.eye(len(H), dtype=H.dtype, device=H.device)
    U: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    return U


def gptq(W: Tensor, H: Tensor, how: Rule, percdamp: float, block: int) -> Codes:
    """Return codes of `W` (m, n) that keep tr((W - W^) H (W - W^)^T) small; a column whose input is always 0 becomes 0."""
    original, H = W.detach().double(), H.clone()
    columns = W.shape[1]
    dead = H.diagonal() == 0
    H.diagonal()[dead] = 1
    W = original.masked_fill(dead, 0)
    U = inverse_factor(H, percdamp)
    codes, grids = torch.empty_like(W), []
    for start in range(0, columns, block):
        end = min(start + block, columns)
        E = torch.zeros_like(W[:, start:end])
        for j in range(start, end):
            if j % how.group == 0:
                grids.append(how.fit(W[:, j : j + how.group] if how.group < columns else original, how.bits))
            w = W[:, j : j + 1]
            codes[:, j : j + 1] = grids[-1].encode(w)
            e = (w - grids[-1].nearest(w)) / U[j, j]
            W[:, j:end] -= e * U[j, j:end]  # the rest of the block at once
            E[:, j - start] = e[:, 0]
        W[:, end:] -= E @ U[start:end, end:]  # all later blocks in one product
    return as_codes(codes, grids, how)


@dataclass(frozen=True)
class Gptq(Method):
    """Round to grids of 2^`bits` points, with damping `percdamp` of the mean diagonal, in blocks of `block` columns."""

    family: ClassVar[str] = "quantization"
    paper: ClassVar[str] = "Frantar et al. 2023, arXiv 2210.17323"
    needs: ClassVar[Needs] = "calibration"
    realisation: ClassVar[Realisation] = "packed"
    stochastic: ClassVar[bool] = False
    identity: ClassVar[Mapping[str, Any]] = {"bits": KEEP}
    strongest: ClassVar[Mapping[str, Any]] = {"bits": 2}

    bits: Literal[2, 3, 4, 5, 6, 7, 8, 32] = 4
    percdamp: Annotated[float, Field(gt=0, le=1)] = 0.01
    block: Annotated[int, Field(ge=1)] = 128

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Fold the batch norms, round stem, classifier and depth-wise layers, then do the others one after another."""
        if self.bits == KEEP:
            return model
        images = data.calibration
        fold_batchnorms(model, images[:1])
        layers, inner, how = weighted(model), prunable(model), rules(model, self.bits)
        for name in layers.keys() - inner.keys():
            store_as_codes(layers[name], round_to_nearest(layers[name].weight.flatten(1), how[name]))
        order: dict[str, None] = {}
        visit_inputs(model, inner, images[:1], lambda name, _rows: order.setdefault(name))
        for name in order:
            H = hessian(model, name, layers[name], images)
            store_as_codes(layers[name], gptq(layers[name].weight.flatten(1), H, how[name], self.percdamp, self.block))
        return model
