"""LoRC, low-rank compensation: round the weights, then add the best matrix of low rank
for what the rounding lost, as two thin layers.

Yao, Wu, Li, Youn, He, "ZeroQuant-V2: Exploring Post-training Quantization in LLMs from
Comprehensive Study to Low Rank Compensation", 2023, arXiv 2303.08302.

W^ = Q(W) is the rounded weight (O, I), and E = W - W^ = U S V^T the singular value
decomposition of its error. Its m largest singular values make two thin factors,

    A = U_m S_m^1/2 (O, m),  B = S_m^1/2 V_m^T (m, I),

and the layer computes

    y = W^ x + A (B x) + bias.

A and B are stored in 8 bits, one grid per column of A and per row of B. A convolution
of kernel kh x kw is the matrix O x (I kh kw): B is a kh x kw convolution to m channels,
and A is a 1 x 1 convolution.

All Conv2d and Linear are corrected but stem, classifier and depth-wise convolutions,
which get 8 bits and no correction. Batch norms are folded first.

Arguments:
    base_bits: width of the codes of W^; 32 leaves the model as it is
    rank: the largest m; a layer may get a smaller one, or no correction at all

Assumed:
    - Q is RTN with the grids of `methods.parts.quantization.quantize`. The paper's
      finer groups, and GPTQ as Q, are not offered.
    - A layer gets the largest m up to `rank` that adds at most one bit per weight,
      scales included, and no correction if that m is 0. Beyond that cost, one bit more
      for W^ is cheaper.
    - `rank` is a number and not a share of the width such as 0.02 min(O, I), which is
      for layers wider than those of the small tracks.
    - The activation-weighted variant (LQER) is not offered.

Checked against:
    - The Eckart-Young theorem: error^2 = sum of the dropped s^2.
    - A planted error of rank one, which is found.
    - No reference code was run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method, store_as_codes
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import Layer, prunable, weighted
from methods.parts.quantization.quantize import KEEP, OTHERS, round_to_nearest, rule

FACTORS = 8  # bits of A and B
Pair = tuple[int, int]


def factors(E: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Return A = U_m S_m^1/2 (O, m) and B = S_m^1/2 V_m^T (m, I) of `E` = U S V^T (O,
    I): A B is the nearest matrix of rank m.
    """
    U, S, Vt = torch.linalg.svd(E, full_matrices=False)
    root = S[:m].sqrt()
    return U[:, :m] * root, root[:, None] * Vt[:m]


def affordable(rank: int, O: int, I: int) -> int:  # noqa: E741
    """Return the largest m up to `rank` whose factors, 8 (O + I) bits and two scales
    with zero points a rank, add at most one bit per weight.
    """
    return min(rank, O * I // (FACTORS * (O + I) + 2 * (16 + 8)))


class Spread(nn.Module):
    """h (..., m) to A h (..., O), with A held as `weight` = A^T (m, O), whose rows are
    stored on one grid each.
    """

    def __init__(self, m: int, O: int, device: torch.device) -> None:  # noqa: E741
        super().__init__()
        self.weight = nn.Parameter(torch.empty(m, O, device=device))

    def forward(self, h: Tensor) -> Tensor:
        return h @ self.weight


class Compensated(nn.Module):
    """W^ x + bias + A (B x)."""

    def __init__(self, base: Layer, B: nn.Module, A: nn.Module) -> None:
        super().__init__()
        self.base, self.B, self.A = base, B, A

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) + self.A(self.B(x))
        return y


def thin(layer: Layer, m: int) -> tuple[nn.Module, nn.Module]:
    """Return layers for B and A, from what `layer` takes to m channels and on to what
    it gives; a transposed 1 x 1 convolution holds A^T as `Spread` does.
    """
    O, device = layer.weight.shape[0], layer.weight.device  # noqa: E741
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, m, bias=False, device=device), Spread(m, O, device)
    kernel, stride, padding, dilation = (
        cast(Pair, pair)
        for pair in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    first = nn.Conv2d(
        layer.in_channels, m, kernel, stride, padding, dilation, bias=False, device=device
    )
    return first, nn.ConvTranspose2d(m, O, 1, bias=False, device=device)


def compensated(layer: Layer, bits: int, rank: int) -> nn.Module:
    """Return `layer` rounded to `bits` with its correction of rank up to `rank`."""
    W = layer.weight.detach().flatten(1).clone()
    store_as_codes(layer, round_to_nearest(W, rule(bits, W.shape[1])))
    m = affordable(rank, *W.shape)
    if m == 0:
        return layer
    A, B = factors(W - layer.weight.detach().flatten(1), m)
    first, last = thin(layer, m)
    store_as_codes(first, round_to_nearest(B, rule(FACTORS, B.shape[1])))
    store_as_codes(last, round_to_nearest(A.T, rule(FACTORS, A.shape[0])))
    return Compensated(layer, first, last)


@dataclass(frozen=True)
class LoRC(Method):
    """Round to `base_bits` and correct by matrices of rank up to `rank`."""

    base_bits: Literal[2, 3, 4, 5, 6, 7, 8, 32] = 4
    rank: Annotated[int, Field(ge=1)] = 8

    family = "quantization"
    paper = "Yao et al. 2023, arXiv 2303.08302"
    needs = "data-free"
    realisation = "packed"
    identity = {"base_bits": KEEP}
    strongest = {"base_bits": 2, "rank": 1}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Fold the batch norms, then round and correct layer by layer."""
        if self.base_bits == KEEP:
            return model
        fold_batchnorms(model, next(model.parameters()).new_zeros(1, *data.image_shape))
        inner = prunable(model)
        for name, layer in weighted(model).items():
            if name in inner:
                model.set_submodule(name, compensated(layer, self.base_bits, self.rank))
            else:
                store_as_codes(
                    layer,
                    round_to_nearest(
                        layer.weight.flatten(1), rule(OTHERS, layer.weight[0].numel())
                    ),
                )
        return model
