"""Tucker-2: replace a k x k convolution by 1 x 1 to fewer channels, k x k among those,
and 1 x 1 back, then fine-tune.

Kim, Park, Yoo, Choi, Yang, Shin, "Compression of Deep Convolutional Neural Networks for
Fast and Low Power Mobile Applications", ICLR 2016, arXiv 1511.06530. A kernel K (O, I,
kh, kw) becomes G x_0 U_o x_1 U_i with G (R_o, R_i, kh, kw), U_o (O, R_o), U_i (I, R_i)
by higher-order orthogonal iteration (tensorly's partial_tucker, started from the HOSVD,
at most 100 rounds, until the relative error changes by less than 1e-4). `rho` is the
share of a layer's weights that remains: R_o = ceil(a O) and R_i = ceil(a I), with the
largest a for which R_i I + R_i R_o kh kw + R_o O is at most rho O I kh kw, at least one
each; a layer that would not get smaller stays, and at rho = 1 all do, untrained. 1 x 1
convolutions and Linear become two factors of rank floor(rho m n / (m + n)), as in
`svd`. Stem, classifier and depth-wise convolutions stay. Then BatchNorm statistics are
re-estimated on the calibration images, and the model is fine-tuned for `share` of the
track's epochs; 0 is one-shot.

ASSUMED: one rho for all layers, where the paper chooses ranks by variational Bayesian
matrix factorisation; convolutions of any width are decomposed, those below 32 input
channels, too, as most of our small networks are, and ranks are not rounded to multiples
of 8; a rank that the other one cannot fill (R_o > R_i kh kw, or the reverse) is cut to
what it can; fine-tuning is the track's recipe instead of the paper's.

Checked against: higher-order orthogonal iteration written independently, 100 rounds, on
all kernels of a trained digits resnet and ResNet-20 at rho 0.1, 0.25, 0.5 and 0.75: the
relative error here is at most 0.0042 above (it stops earlier) and on average 0.004 to
0.02 below HOSVD's; the triple computes what the convolution with the rebuilt kernel
does, to 1.2e-6. In the tests: 4352 weights, kernels made of factors, HOSVD and its
bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Annotated, cast

import torch
from pydantic import Field
from tensorly.decomposition import partial_tucker
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.low_rank.factors import Pair, factors, filled, pair, rank
from methods.parts.network.layers import Layer, prunable
from methods.parts.pruning.masks import recover
from methods.parts.training.train import train


def size(O: int, I: int, k: int, R_o: int, R_i: int) -> int:  # noqa: E741
    """Return the weights of the three layers in the place of O x I x k, k the taps of
    the kernel.
    """
    return R_i * I + R_i * R_o * k + R_o * O


def ranks(O: int, I: int, k: int, rho: float) -> tuple[int, int]:  # noqa: E741
    """Return R_o and R_i, in one proportion to O and I, of the largest triple with at
    most `rho` of the weights; (0, 0) where (1, 1) is no smaller.
    """
    steps = sorted(
        {(j / O, j, ceil(j * I / O)) for j in range(1, O + 1)}
        | {(j / I, ceil(j * O / I), j) for j in range(1, I + 1)}
    )
    fitting = [(R_o, R_i) for _, R_o, R_i in steps if size(O, I, k, R_o, R_i) <= rho * O * I * k]
    R_o, R_i = fitting[-1] if fitting else (1, 1)
    R_o, R_i = min(R_o, R_i * k), min(R_i, R_o * k)
    return (R_o, R_i) if size(O, I, k, R_o, R_i) < O * I * k else (0, 0)


def tucker2(K: Tensor, R_o: int, R_i: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return G (R_o, R_i, kh, kw), U_o (O, R_o) and U_i (I, R_i), whose columns are
    orthonormal, with K (O, I, kh, kw) ~ G x_0 U_o x_1 U_i.
    """
    (G, (U_o, U_i)), _ = partial_tucker(
        K.detach().cpu().double().numpy(), rank=[R_o, R_i], modes=[0, 1]
    )
    return torch.from_numpy(G).to(K), torch.from_numpy(U_o).to(K), torch.from_numpy(U_i).to(K)


def triple(layer: nn.Conv2d, R_o: int, R_i: int) -> nn.Sequential:
    """Return 1 x 1 from I to R_i channels, kh x kw to R_o with the stride, padding and
    dilation of `layer`, and 1 x 1 to O with its bias.
    """
    O, I, kh, kw = layer.weight.shape  # noqa: E741
    G, U_o, U_i = tucker2(layer.weight, R_o, R_i)
    stride, padding, dilation = (
        cast(Pair, layer.stride),
        cast(Pair, layer.padding),
        cast(Pair, layer.dilation),
    )
    core = nn.Conv2d(R_i, R_o, (kh, kw), stride, padding, dilation, bias=False)
    return nn.Sequential(
        filled(nn.Conv2d(I, R_i, 1, bias=False), U_i.T[:, :, None, None], None),
        filled(core, G, None),
        filled(nn.Conv2d(R_o, O, 1, bias=False), U_o[:, :, None, None], layer.bias),
    )


def spatial(layer: Layer) -> bool:
    """Say whether `layer` is a convolution with a kernel larger than 1 x 1."""
    return isinstance(layer, nn.Conv2d) and layer.weight[0, 0].numel() > 1


def smaller(layer: Layer, rho: float) -> nn.Module:
    """Return what replaces `layer`, with at most `rho` of its weights (or rank 1);
    `layer` itself where that saves nothing.
    """
    W = layer.weight.detach()
    if isinstance(layer, nn.Conv2d) and spatial(layer):
        R_o, R_i = ranks(W.shape[0], W.shape[1], W[0, 0].numel(), rho)
        return triple(layer, R_o, R_i) if R_o else layer
    r = rank(len(W), W.shape[1], rho)
    return pair(layer, *factors(W.flatten(1), r), layer.bias) if r else layer


@dataclass(frozen=True)
class Tucker(Method):
    """Keep the share `rho` of the weights of each layer as a Tucker-2 triple or a pair,
    then fine-tune `share` of the budget; 1 keeps dense, untrained.
    """

    rho: Annotated[float, Field(gt=0, le=1)] = 0.5
    share: Annotated[float, Field(ge=0, le=1)] = 1.0

    family = "low-rank"
    paper = "Kim et al. 2016, arXiv 1511.06530"
    needs = "fine-tune"
    stochastic = True
    identity = {"rho": 1.0}
    strongest = {"rho": 0.02}

    def skip(self, model: nn.Module) -> str | None:
        return (
            None
            if any(map(spatial, prunable(model).values()))
            else "no ungrouped convolution larger than 1 x 1: Tucker-2 would be plain SVD"
        )

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.rho == 1:
            return model
        for name, layer in prunable(model).items():
            model.set_submodule(name, smaller(layer, self.rho))
        recover(model, data, 1)
        return train(
            model, data, replace(data.fine_tune, epochs=self.share * data.fine_tune.epochs)
        )
