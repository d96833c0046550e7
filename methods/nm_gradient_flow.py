"""Progressive gradient flow: train N:M sparse weights from scratch while the other
weights of each block fade out of the forward pass.

Bambhaniya, Yazdanbakhsh, Subramanian, Kao, Agrawal, Evci, Krishna, "Progressive
Gradient Flow for Robust N:M Sparsity Training in Transformers", 2024, arXiv 2402.04744.

N of every M consecutive weights along the input channels are kept (a convolution is
read in the order out, kh, kw, in). The mask, 1 at these weights and 0 at the others, is
chosen anew at every forward pass: by |W| in float32, and of equal weights those at the
lower index lose.

In mask decay (MdGf) the other weights fade: the forward pass uses

    W (mask + (1 - mask) beta)

and beta falls from 1, linearly or exponentially. In structure decay (SdGf) all masks
are binary and become sparser, for equal times: stepwise (M-1):M, M/2:M, ..., N:M, or
geometric 8N:8M, 4N:4M, 2N:2M, N:M.

As in the paper the model is new. It is trained by the track's recipe for training from
scratch; the weights of the dense model play no part.

Arguments:
    n: N, how many weights of each block are kept; n = m keeps dense as it is
    m: M, how many consecutive weights make a block
    decay: how the weights outside the mask leave the forward pass: "linear" and
        "exponential" are mask decay, "stepwise" and "geometric" structure decay
    gradient: what of the gradient reaches the weights outside the mask: "chain" follows
        the chain rule, so that it fades with beta and is 0 in structure decay; "ste"
        passes it unscaled, straight through
    dense_share: share of the training steps that come before the decay and use all
        weights; 0 lets the decay begin at once
    binary_share: share of the training steps that come after the decay and use the
        final binary mask; 1 (then `dense_share` is 0) is plain masked training

Assumed:
    - The first 5 % of the steps are dense and the last 10 % have the final binary mask;
      the defaults of the released code are 0.
    - By the end of the decay beta has come down to 0.01 (exponential) or 0 (linear).
    - The gradient follows the chain rule, which is our reading of the paper; the
      released code passes it unscaled, as "ste" does.
    - All layers that `methods.parts.network.layers.prunable` lists take part: all but
      stem, classifier and depth-wise convolutions. In a ViT these are qkv, proj, fc1
      and fc2; convolutions and the layers of a mixer are included.
    - A layer whose input channels M does not divide stays dense. With M = 16 on digits
      these are 6 of 19 layers in resnet with 3 % of the weights, 3 of 14 in mobilenet
      with 18 %, and 6 of 24 in mixer with 2 %.
    - Geometric blocks wider than a row run on into the next row, as in the released
      code. While the blocks are of a size that does not divide the number of a layer's
      weights, that layer is still dense.
    - Deviation: what the released code does otherwise by mistake is not followed: it
      loses a bias, and it swaps positional arguments.

Checked against:
    - github.com/abhibambhaniya/progressive_gradient_flow_nm_sparsity at 4ee44a4, the
      authors' autograd functions (an indentation repaired), run side by side with ours:
      weights and straight-through gradients bit for bit the same in 144 cases (linear,
      exponential, step; Linear and Conv2d); the same frames of structure decay, to
      within an epoch, in 10 cases.
    - In the tests: a worked example; with beta = 1 the model trains bit for bit as
      without the method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import floor
from operator import and_
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from methods import Data, Method
from methods.parts.network.layers import Layer, prunable
from methods.parts.pruning.masks import zero
from methods.parts.training.train import train

Frame = tuple[float, Mapping[int, int]]  # beta, and the number of weights kept by size of block


def nm_mask(W: Tensor, N: int | Tensor, M: int) -> Tensor:
    """Mark the N largest |W| of each M consecutive weights of W (out, in) or (out, in,
    kh, kw) along the input channels; of equals the last.
    """
    blocks = W.detach().movedim(1, -1).abs()
    order = blocks.reshape(-1, M).sort(dim=1, stable=True).indices
    kept = (torch.arange(M, device=W.device) >= M - N).expand_as(order)
    return torch.empty_like(kept).scatter_(1, order, kept).view(blocks.shape).movedim(-1, 1)


def linear(p: float, N: int, M: int) -> Frame:
    """MdGf: beta = 1 - p."""
    return 1 - p, {M: N}


def exponential(p: float, N: int, M: int) -> Frame:
    """MdGf: beta = exp(-p ln 100)."""
    return 100**-p, {M: N}


def stepwise(p: float, N: int, M: int) -> Frame:
    """SdGf: (M-1):M, M/2:M, M/4:M, ..., N:M for equal times."""
    halves = [M >> i for i in range(1, M.bit_length()) if M >> i > N]
    kept = [max(M - 1, N), *halves, N]
    return 0.0, {M: kept[floor(p * len(kept))]}


def geometric(p: float, N: int, M: int) -> Frame:
    """SdGf: 8N:8M, 4N:4M, 2N:2M, N:M for equal times."""
    k = (8, 4, 2, 1)[floor(p * 4)]
    return 0.0, {k * M: k * N}


def chain(W: Tensor, factor: Tensor) -> Tensor:
    """Return W factor; the gradient of W is that of the result times factor."""
    return W * factor


def ste(W: Tensor, factor: Tensor) -> Tensor:
    """Return W factor; the gradient of W is that of the result ("straight through")."""
    return (W * factor).detach() + (W - W.detach())


RECIPES: dict[str, Callable[[float, int, int], Frame]] = {
    "linear": linear,
    "exponential": exponential,
    "stepwise": stepwise,
    "geometric": geometric,
}
GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"chain": chain, "ste": ste}


class Flow(nn.Module):
    """Weight W as W (mask + (1 - mask) beta), the mask keeping what every size of block
    keeps; the numbers are buffers, for CUDA graphs.
    """

    beta: Tensor
    kept: Tensor

    def __init__(
        self, W: Tensor, sizes: Sequence[int], gradient: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.sizes, self.gradient = [M for M in sizes if W.numel() % M == 0], gradient
        self.register_buffer("beta", torch.ones((), device=W.device))
        self.register_buffer("kept", torch.tensor(self.sizes).to(W.device))

    def show(self, frame: Frame) -> None:
        """Go on with `frame`; blocks of a size that it does not name keep all."""
        beta, kept = frame
        self.beta.fill_(beta)
        self.kept.copy_(torch.tensor([kept.get(M, M) for M in self.sizes]))

    def forward(self, W: Tensor) -> Tensor:
        mask = reduce(and_, (nm_mask(W, self.kept[i], M) for i, M in enumerate(self.sizes)))
        return self.gradient(W, torch.where(mask, 1.0, self.beta))


def divisible(model: nn.Module, M: int) -> dict[str, Layer]:
    """Return the prunable layers with a multiple of M input channels."""
    return {
        name: layer for name, layer in prunable(model).items() if layer.weight.shape[1] % M == 0
    }


Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class NMGradientFlow(Method):
    """Train a new model whose prunable layers keep `n` of every `m` weights, while the
    others fade as `decay` says.
    """

    n: Annotated[int, Field(ge=1, le=64)] = 2
    m: Annotated[int, Field(ge=2, le=64)] = 4
    decay: Literal["linear", "exponential", "stepwise", "geometric"] = "exponential"
    gradient: Literal["chain", "ste"] = "chain"
    dense_share: Share = 0.05
    binary_share: Share = 0.1

    family = "pruning"
    paper = "Bambhaniya et al. 2024, arXiv 2402.04744"
    needs = "scratch"
    realisation = "masked"
    stochastic = True
    identity = {"n": 4, "m": 4}
    strongest = {"n": 1, "m": 16}

    def __post_init__(self) -> None:
        if self.n > self.m or self.dense_share + self.binary_share > 1:
            raise ValueError(f"n must be at most m and the shares at most 1 together, found {self}")

    def skip(self, model: nn.Module) -> str | None:
        return (
            None
            if divisible(model, self.m)
            else f"no layer has a multiple of m = {self.m} input channels"
        )

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.n == self.m:
            return model
        model, steps = data.narrower(1.0), data.steps(data.scratch)
        frames = [self.frame(step, steps) for step in range(steps + 1)]
        sizes = sorted({M for _, kept in frames for M in kept})
        flows = {
            name: Flow(layer.weight, sizes, GRADIENTS[self.gradient])
            for name, layer in divisible(model, self.m).items()
        }
        for name, flow in flows.items():
            parametrize.register_parametrization(model.get_submodule(name), "weight", flow)
        shown = iter(frames)

        def show(_rate: float) -> None:
            frame = next(shown)
            for flow in flows.values():
                flow.show(frame)

        show(0.0)
        train(model, data, data.scratch, show)
        for name in flows:
            parametrize.remove_parametrizations(
                model.get_submodule(name), "weight", leave_parametrized=False
            )
        zero(
            model,
            {
                name: ~nm_mask(layer.weight, self.n, self.m)
                for name, layer in divisible(model, self.m).items()
            },
        )
        return model

    def frame(self, step: int, steps: int) -> Frame:
        """Return what is shown at `step` of `steps`: all, the decay, or the final
        binary mask.
        """
        p = (step - self.dense_share * steps) / max(
            steps * (1 - self.dense_share - self.binary_share), 1e-9
        )
        if p >= 1:
            return 0.0, {self.m: self.n}
        return (1.0, {}) if p < 0 else RECIPES[self.decay](p, self.n, self.m)
