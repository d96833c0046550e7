"""Truncated SVD: replace a layer by two thinner ones, the best approximation of its weight matrix of rank r.

Denton et al., Exploiting linear structure within convolutional networks for efficient evaluation, NIPS 2014, arXiv 1404.0736 (`channel`); Jaderberg
et al., Speeding up convolutional neural networks with low rank expansions, BMVC 2014, arXiv 1405.3866 (`spatial`). Neither is followed to the
letter: this is the plain SVD that the field compares with.
`rho` is the share of a layer's weights that its pair keeps: r = floor(rho m n / (m + n)) for a matrix of m x n, at least 1. All Conv2d and Linear
but stem, classifier and depth-wise convolutions; a layer that would not get smaller stays, and at rho = 1 all do. `scheme` says which matrix a
convolution is: channel, (O) x (I kh kw), becomes kh x kw to r channels, then 1 x 1; spatial, (O kw) x (I kh), becomes kh x 1, then 1 x kw.
Defaults: rho 0.5, channel, no fine-tuning. ASSUMED: one rho for all layers; each factor gets the square root of the singular values; the statistics
of batch norms, where there are any, are re-estimated on the calibration images.
Checked against: the Eckart-Young theorem (error^2 = sum of the dropped s^2), and layers of known rank, whose pairs must compute the same whatever the
stride, padding and dilation; no reference code was run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method, Needs, Realisation
from methods._batchnorm import has_batchnorm, recalibrate
from methods._layers import Layer, prunable

Pair = tuple[int, int]


def rank(m: int, n: int, rho: float) -> int:
    """Return r = floor(rho m n / (m + n)), at least 1, or 0 where such a pair is no smaller than the matrix."""
    r = max(1, int(rho * m * n / (m + n)))
    return r if r * (m + n) < m * n else 0


def factors(W: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Return A = U_r S_r^1/2 (m, r) and B = S_r^1/2 V_r^T (r, n) of `W` = U S V^T (m, n): A B is the nearest matrix of rank r."""
    U, S, Vt = torch.linalg.svd(W, full_matrices=False)
    root = S[:r].sqrt()
    return U[:, :r] * root, root[:, None] * Vt[:r]


def filled(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    """Return `layer` with this `weight` and `bias`."""
    layer.weight, layer.bias = nn.Parameter(weight.contiguous()), cast(nn.Parameter | None, bias)
    return layer


def linear(layer: nn.Linear, rho: float) -> nn.Module:
    """Return (m, n) as n to r, then r to m with the bias; `layer` itself where that saves nothing."""
    m, n = layer.weight.shape
    r = rank(m, n, rho)
    if r == 0:
        return layer
    A, B = factors(layer.weight.detach(), r)
    return nn.Sequential(filled(nn.Linear(n, r, bias=False), B, None), filled(nn.Linear(r, m, bias=False), A, layer.bias))


def channel(layer: nn.Conv2d, rho: float) -> nn.Module:
    """Return (O, I, kh, kw) as I to r channels by kh x kw, then r to O by 1 x 1; `layer` itself where that saves nothing."""
    O, I, kh, kw = layer.weight.shape  # noqa: E741
    r = rank(O, I * kh * kw, rho)
    if r == 0:
        return layer
    A, B = factors(layer.weight.detach().flatten(1), r)
    stride, padding, dilation = cast(Pair, layer.stride), cast(Pair, layer.padding), cast(Pair, layer.dilation)
    first = nn.Conv2d(I, r, (kh, kw), stride, padding, dilation, bias=False)
    last = nn.Conv2d(r, O, 1, bias=False)
    return nn.Sequential(filled(first, B.view(r, I, kh, kw), None), filled(last, A.view(O, r, 1, 1), layer.bias))


def spatial(layer: nn.Conv2d, rho: float) -> nn.Module:
    """Return (O, I, kh, kw) as I to r channels by kh x 1, then r to O by 1 x kw; `layer` itself where that saves nothing."""
    O, I, kh, kw = layer.weight.shape  # noqa: E741
    r = rank(O * kw, I * kh, rho)
    if r == 0:
        return layer
    A, B = factors(layer.weight.detach().permute(0, 3, 1, 2).reshape(O * kw, I * kh), r)
    (down, right), (top, left), (tall, wide) = cast(Pair, layer.stride), cast(Pair, layer.padding), cast(Pair, layer.dilation)
    first = nn.Conv2d(I, r, (kh, 1), (down, 1), (top, 0), (tall, 1), bias=False)
    last = nn.Conv2d(r, O, (1, kw), (1, right), (0, left), (1, wide), bias=False)
    return nn.Sequential(filled(first, B.view(r, I, kh, 1), None), filled(last, A.view(O, kw, r).permute(0, 2, 1)[:, :, None], layer.bias))


@dataclass(frozen=True)
class Svd(Method):
    """Keep the share `rho` of the weights of each layer as two factors, convolutions cut by `scheme`."""

    family: ClassVar[str] = "low-rank"
    paper: ClassVar[str] = "Denton et al. 2014, arXiv 1404.0736"
    needs: ClassVar[Needs] = "calibration"
    realisation: ClassVar[Realisation] = "structural"
    stochastic: ClassVar[bool] = False
    identity: ClassVar[Mapping[str, Any]] = {"rho": 1.0}
    strongest: ClassVar[Mapping[str, Any]] = {"rho": 0.01}

    rho: Annotated[float, Field(gt=0, le=1)] = 0.5
    scheme: Literal["channel", "spatial"] = "channel"

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Factorise layer by layer, then re-estimate the batch norms."""
        if self.rho == 1:
            return model
        convolution = {"channel": channel, "spatial": spatial}[self.scheme]
        for name, layer in prunable(model).items():
            model.set_submodule(name, linear(layer, self.rho) if isinstance(layer, nn.Linear) else convolution(layer, self.rho))
        if has_batchnorm(model):
            recalibrate(model, data.calibration)
        return model
