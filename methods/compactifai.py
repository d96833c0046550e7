"""CompactifAI: replace the weight of each layer by a matrix product operator, a chain
of small tensors, then heal the chains by a brief fine-tuning.

Tomut, Jahromi, ..., Orus, "CompactifAI: Extreme Compression of Large Language Models
using Quantum-Inspired Tensor Networks", 2024, arXiv 2401.14109.

With O = o_1 ... o_p and I = i_1 ... i_p, the weight W (O, I) becomes p cores of shape
(chi_k-1, o_k, i_k, chi_k). They are made by p - 1 SVDs from left to right: each keeps
the chi largest singular values, turns its U into a core and hands S V^T on.

For p = 2 that is the truncated SVD of the rearranged matrix (o_1 i_1) x (o_2 i_2), the
nearest sum of chi Kronecker products.

The bond chi is the largest with which the cores keep at most the share rho of the
layer's weights, and at least 1. All Conv2d and Linear are decomposed but stem,
classifier and depth-wise convolutions; qkv is one matrix. A layer that would not get
smaller stays. Then the whole model is healed, that is, fine-tuned for a while.

A layer runs in the way that needs fewer multiply-accumulates for one image, as the
benchmark's counter counts them. Either the input is contracted with core after core, or
W is rebuilt each time (which takes chi O I for p = 2) and used as before. Few weights
are not few multiply-accumulates: at rho = 0.5 both ways cost small layers more than
dense.

Arguments:
    rho: the share of each layer's weights that its cores keep; 1 keeps the model,
        untrained
    cores: p, the number of cores of a chain
    share: the share of the track's fine-tuning epochs for which the whole model is
        healed; 0 does not heal

Assumed:
    - A chain has p = 2 cores by default.
    - The factors of O and I are as near to each other as divisors allow, smallest
      first.
    - A convolution, of which the paper has none, is O x (I kh kw), cut between
      channels, so that the window stays with the last core.
    - `share` is 0.25 by default; the paper heals for less than an epoch of chats.
    - One rho serves all layers; the paper profiles layers, and spares early ones.
    - Channels are not permuted.
    - Cores stay float32; the paper goes on to quantise.
    - The statistics of batch norms are re-estimated on the calibration images before
      healing.

Checked against:
    - tensorly 0.10's tensor_train_matrix, for 2 to 4 cores: matrices equal to 1e-12.
    - Gao et al.'s Matrix2MPO, github.com/zfgao66/OPF at 53797e1: 2 cores equal to
      1e-12. Of more cores it cuts all bonds at once, with a larger error than ours.
    - In the tests: worked examples, and both ways to run a chain against the layer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from methods import Data, Method
from methods.parts.network.layers import Layer, prunable
from methods.parts.pruning.masks import recover
from methods.parts.training.train import train

Cores = Sequence[Tensor]


def near_equal(n: int, p: int, window: int = 1) -> list[int]:
    """Return p factors of n, as near to each other as divisors allow from the first on,
    if the last one counts `window` times.
    """
    if p == 1:
        return [n]
    first = max(d for d in range(1, n + 1) if n % d == 0 and d**p <= n * window)
    return [first, *near_equal(n // first, p - 1, window)]


def parameters(sizes: Sequence[int], chi: int) -> int:
    """Return the sum of chi_k-1 o_k i_k chi_k over `sizes` o_k i_k, with chi_k = `chi`
    or the full rank there, if that is less.
    """
    chis = [1, *(min(chi, prod(sizes[:k]), prod(sizes[k:])) for k in range(1, len(sizes))), 1]
    return sum(chis[k] * size * chis[k + 1] for k, size in enumerate(sizes))


def bond(sizes: Sequence[int], limit: float) -> int:
    """Return the largest chi whose cores have at most `limit` parameters, at least
    1.
    """
    return max(
        1, bisect_right(range(1, int(limit) + 2), limit, key=lambda chi: parameters(sizes, chi))
    )


def decomposed(W: Tensor, o: Sequence[int], i: Sequence[int], chi: int) -> list[Tensor]:
    """Return the cores (chi_k-1, o_k, i_k, chi_k) of `W` (o_1 ... o_p, i_1 ... i_p),
    cut from left to right at the `chi` largest singular values.
    """
    p, left, cores = len(o), 1, []
    rest = W.reshape(*o, *i).permute([axis for k in range(p) for axis in (k, p + k)])
    for o_k, i_k in zip(o[:-1], i[:-1], strict=True):
        U, S, Vt = torch.linalg.svd(rest.reshape(left * o_k * i_k, -1), full_matrices=False)
        kept = min(chi, len(S))
        cores.append(U[:, :kept].reshape(left, o_k, i_k, kept))
        rest, left = S[:kept, None] * Vt[:kept], kept
    return [*cores, rest.reshape(left, o[-1], i[-1], 1)]


def rebuilt(cores: Cores) -> Tensor:
    """Return the matrix (o_1 ... o_p, i_1 ... i_p) of `cores`."""
    p, W = len(cores), cores[0]
    for core in cores[1:]:
        W = W.reshape(-1, core.shape[0]) @ core.flatten(1)
    o, i = [core.shape[1] for core in cores], [core.shape[2] for core in cores]
    W = W.reshape([size for pair in zip(o, i, strict=True) for size in pair])
    return W.permute(*range(0, 2 * p, 2), *range(1, 2 * p, 2)).reshape(prod(o), prod(i))


def contracted(
    x: Tensor, cores: Cores, kernel: Sequence[int], operator: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return y (N, O, ...) = `operator`(x, W) of `x` (N, I, ...) and the weight W (O,
    I, *`kernel`) of `cores`, from the last to the first, without W.
    """
    *others, last = cores
    chi, o, i, _ = last.shape
    i //= prod(kernel)
    # (N i_1 ... i_p-1, chi_p-1 o_p, ...)
    y = operator(x.reshape(-1, i, *x.shape[2:]), last.reshape(chi * o, i, *kernel))
    where, done = y.shape[2:], o
    for core in reversed(others):
        left, o, i, chi = core.shape
        # (N i_1 ... i_k-1, chi_k-1 o_k, o_k+1 ... o_p ...)
        y = core.reshape(left * o, i * chi) @ y.reshape(-1, i * chi, done * prod(where))
        done *= o
    return y.reshape(-1, done, *where)


class Mpo(nn.Module):
    """A Linear or ungrouped Conv2d whose weight is the matrix of `cores`; it is rebuilt
    each time.
    """

    def __init__(self, layer: Layer, cores: Cores) -> None:
        super().__init__()
        self.cores, self.bias = (
            nn.ParameterList([nn.Parameter(core.contiguous()) for core in cores]),
            layer.bias,
        )
        self.kernel = tuple(layer.weight.shape[2:])
        self.operator: Callable[..., Tensor] = linear
        if isinstance(layer, nn.Conv2d):
            self.operator = partial(
                conv2d, stride=layer.stride, padding=layer.padding, dilation=layer.dilation
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return y of x, both in the shapes of the layer."""
        W = rebuilt(list(self.cores))
        return self.operator(x, W.reshape(len(W), -1, *self.kernel), self.bias)


class ContractedMpo(Mpo):
    """The same, with the input contracted with core after core."""

    def forward(self, x: Tensor) -> Tensor:
        """Return y of x, both in the shapes of the layer."""
        rows = x if self.kernel else x.flatten(0, -2)
        y = contracted(rows, list(self.cores), self.kernel, self.operator)
        if self.bias is not None:
            y = y + self.bias.view(-1, *(1 for _ in self.kernel))
        return y if self.kernel else y.reshape(*x.shape[:-1], -1)


def chain(layer: Layer, rho: float, p: int) -> list[Tensor]:
    """Return the p cores that keep the share `rho` of the weights of `layer`, or none
    where they would not be fewer.
    """
    W, window = layer.weight.detach().flatten(1), prod(layer.weight.shape[2:])
    o, i = near_equal(len(W), p), near_equal(layer.weight.shape[1], p, window)
    i[-1] *= window
    sizes = [o_k * i_k for o_k, i_k in zip(o, i, strict=True)]
    chi = bond(sizes, rho * W.numel())
    return decomposed(W, o, i, chi) if parameters(sizes, chi) < W.numel() else []


def put_cheaper(model: nn.Module, name: str, ways: Sequence[nn.Module], data: Data) -> None:
    """Put that of `ways` into the place `name` of `model` that needs the fewest
    multiply-accumulates for one image.
    """
    costs = []
    for way in ways:
        model.set_submodule(name, way)
        costs.append(data.macs(model))
    model.set_submodule(name, ways[costs.index(min(costs))])


@dataclass(frozen=True)
class CompactifAI(Method):
    """Keep the share `rho` of each layer's weights as `cores` cores, then heal for
    `share` of the fine-tuning budget.
    """

    rho: Annotated[float, Field(gt=0, le=1)] = 0.5
    cores: Literal[2, 3] = 2
    share: Annotated[float, Field(ge=0, le=1)] = 0.25

    family = "low-rank"
    paper = "Tomut et al. 2024, arXiv 2401.14109"
    needs = "fine-tune"
    stochastic = True
    identity = {"rho": 1.0}
    strongest = {"rho": 0.01}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Decompose layer by layer, re-estimate the batch norms, and train."""
        if self.rho == 1:
            return model
        for name, layer in prunable(model).items():
            if cores := chain(layer, self.rho, self.cores):
                put_cheaper(model, name, (Mpo(layer, cores), ContractedMpo(layer, cores)), data)
        recover(model, data, 1)
        return train(
            model, data, replace(data.fine_tune, epochs=self.share * data.fine_tune.epochs)
        )
