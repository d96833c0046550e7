"""Tucker-2: replace a k x k convolution by 1 x 1 to fewer channels, k x k among those,
and 1 x 1 back, then fine-tune.

Kim, Park, Yoo, Choi, Yang, Shin, "Compression of Deep Convolutional Neural Networks for
Fast and Low Power Mobile Applications", ICLR 2016, arXiv 1511.06530.

A kernel K (O, I, kh, kw) is approximated by a smaller core G (R_o, R_i, kh, kw) and two
matrices U_o (O, R_o) and U_i (I, R_i), multiplied along its output and input channels:

    K ~= G x_0 U_o x_1 U_i

The layer becomes three: U_i^T as 1 x 1, G as kh x kw, U_o as 1 x 1. The parts come from
higher-order orthogonal iteration, by tensorly's partial_tucker. It starts from the
HOSVD (the singular vectors of K unfolded along each mode) and runs for at most 100
rounds, until the relative error changes by less than 1e-4.

The ranks are R_o = ceil(a O) and R_i = ceil(a I), at least one each, with the largest a
for which the three layers have at most the share rho of the weights:

    R_i I + R_i R_o kh kw + R_o O <= rho O I kh kw

1 x 1 convolutions and Linear become two factors of rank floor(rho m n / (m + n)), as in
`svd`. A layer that would not get smaller stays; so do stem, classifier and depth-wise
convolutions. A model without an ungrouped convolution larger than 1 x 1 is skipped:
there this would be plain SVD.

Then the statistics of batch norms are re-estimated on the calibration images, and the
model is fine-tuned.

Arguments:
    rho: the share of each layer's weights that remains; 1 keeps the model, untrained
    share: the share of the track's fine-tuning epochs for which the model is trained
        afterwards; 0 is one-shot

Assumed:
    - One rho serves all layers; the paper chooses ranks by variational Bayesian matrix
      factorisation.
    - Convolutions of any width are decomposed, even those below 32 input channels, as
      most in our small networks are.
    - Ranks are not rounded to multiples of 8.
    - A rank that the other one cannot fill (R_o > R_i kh kw, or the reverse) is cut to
      what it can.
    - Fine-tuning is the track's recipe instead of the paper's.

Checked against:
    - Higher-order orthogonal iteration written independently, 100 rounds, on all
      kernels of a trained digits resnet and ResNet-20 at rho 0.1, 0.25, 0.5 and 0.75:
      the relative error here is at most 0.0042 above that one's, as partial_tucker
      stops earlier.
    - HOSVD on the same kernels: the relative error here is on average 0.004 to 0.02
      below HOSVD's.
    - The convolution with the rebuilt kernel: the three layers compute the same to
      1.2e-6.
    - In the tests: the 4352 weights of a 3 x 3 convolution from 64 to 64 channels at
      ranks of 16; kernels made of factors, which are recovered; HOSVD and its bound,
      neither of which the error exceeds.
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
    then fine-tune `share` of the budget.
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
