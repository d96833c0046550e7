"""Truncated SVD: replace a layer by two thinner ones, the best approximation of its
weight matrix of rank r.

Denton et al., "Exploiting linear structure within convolutional networks for efficient
evaluation", NIPS 2014, arXiv 1404.0736 (`channel`); Jaderberg et al., "Speeding up
convolutional neural networks with low rank expansions", BMVC 2014, arXiv 1405.3866
(`spatial`).

Neither paper is followed to the letter: this is the plain truncated SVD that the field
compares with. With W = U S V^T, an m x n matrix, a layer becomes two, first B, then A:

    W ~= A B,  A = U_r S_r^1/2 (m x r),  B = S_r^1/2 V_r^T (r x n)

The rank follows from rho, the share of the layer's weights that the pair keeps:

    r = floor(rho m n / (m + n)), at least 1

So rho = 0.5 makes of a 64 x 64 matrix a pair of rank 16.

All Conv2d and Linear are factorised but stem, classifier and depth-wise convolutions. A
layer that would not get smaller stays. There is no fine-tuning.

Arguments:
    rho: the share of each layer's weights that its pair keeps; 1 keeps the model
    scheme: which matrix a convolution is: "channel", (O) x (I kh kw), becomes kh x kw
        to r channels, then 1 x 1; "spatial", (O kw) x (I kh), becomes kh x 1 to r
        channels, then 1 x kw; a Linear is the same under both

Assumed:
    - One rho serves all layers.
    - Each factor gets the square root of the singular values.
    - The statistics of batch norms, where there are any, are re-estimated on the
      calibration images.

Checked against:
    - The Eckart-Young theorem: error^2 is the sum of the dropped s^2.
    - Layers of known rank, whose pairs must compute the same whatever the stride,
      padding and dilation.
    - No reference code was run.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, cast

from pydantic import Field
from torch import nn

from methods import Data, Method
from methods.parts.low_rank.factors import Pair, factors, filled, pair, rank
from methods.parts.network.batchnorm import has_batchnorm, recalibrate
from methods.parts.network.layers import Layer, prunable


def channel(layer: Layer, rho: float) -> nn.Module:
    """Return (O, I, kh, kw) as I to r channels by kh x kw, then r to O by 1 x 1, and
    (m, n) as n to r to m; `layer` itself where that saves nothing.
    """
    W = layer.weight.detach().flatten(1)
    r = rank(len(W), W[0].numel(), rho)
    return pair(layer, *factors(W, r), layer.bias) if r else layer


def spatial(layer: Layer, rho: float) -> nn.Module:
    """Return (O, I, kh, kw) as I to r channels by kh x 1, then r to O by 1 x kw;
    `layer` itself where that saves nothing.
    """
    O, I, kh, kw = layer.weight.shape  # noqa: E741
    r = rank(O * kw, I * kh, rho)
    if r == 0:
        return layer
    A, B = factors(layer.weight.detach().permute(0, 3, 1, 2).reshape(O * kw, I * kh), r)
    (down, right), (top, left), (tall, wide) = (
        cast(Pair, layer.stride),
        cast(Pair, layer.padding),
        cast(Pair, layer.dilation),
    )
    first = nn.Conv2d(I, r, (kh, 1), (down, 1), (top, 0), (tall, 1), bias=False)
    last = nn.Conv2d(r, O, (1, kw), (1, right), (0, left), (1, wide), bias=False)
    return nn.Sequential(
        filled(first, B.view(r, I, kh, 1), None),
        filled(last, A.view(O, kw, r).permute(0, 2, 1)[:, :, None], layer.bias),
    )


@dataclass(frozen=True)
class SVD(Method):
    """Keep the share `rho` of the weights of each layer as two factors, convolutions
    cut by `scheme`.
    """

    rho: Annotated[float, Field(gt=0, le=1)] = 0.5
    scheme: Literal["channel", "spatial"] = "channel"

    family = "low-rank"
    paper = "Denton et al. 2014, arXiv 1404.0736"
    needs = "calibration"
    identity = {"rho": 1.0}
    strongest = {"rho": 0.01}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Factorise layer by layer, then re-estimate the batch norms."""
        if self.rho == 1:
            return model
        for name, layer in prunable(model).items():
            along_axes = self.scheme == "spatial" and isinstance(layer, nn.Conv2d)
            model.set_submodule(name, (spatial if along_axes else channel)(layer, self.rho))
        if has_batchnorm(model):
            recalibrate(model, data.calibration)
        return model
