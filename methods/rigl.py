"""RigL: train a sparse network from scratch, moving its connections to where the dense
gradient is largest.

Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners",
ICML 2020, arXiv 1911.11134.

A new model of dense's architecture is trained by the track's recipe for training from
scratch. The connections of a layer are those of its weights that may differ from zero.
Each layer starts with random ones, as many as its Erdos-Renyi-Kernel (ERK) density asks
for:

    eps (sum of the weight's dimensions) / (their product)

This is capped at 1, and eps is such that n - round(s n) of all n prunable weights are
kept. The number of connections of a layer stays the same throughout.

At every dT-th step t until T_end, which is 3/4 of the steps, each layer drops the
fraction

    f(t) = alpha/2 (1 + cos(pi t / T_end))

of its connections, those with the smallest |w|. It grows as many where the gradient of
the batch, with respect to all weights, is largest in magnitude. New ones start at zero;
one that is dropped and grown at once goes on as it was.

Arguments:
    sparsity: s, the share of all prunable weights together that is zero; 0 keeps dense
        itself
    alpha: f(0), the share of each layer's connections that the first update moves; 0 is
        the static random mask
    updates: how many updates of the masks a short run shall still have; dT is shortened
        for it within limits, and a long run has more

Assumed:
    - ERK goes over the prunable layers of this benchmark, so that stem, classifier and
      depth-wise convolutions stay dense; in the paper it goes over all layers but the
      first one.
    - Counts are rounded by largest remainders, to meet the budget exactly.
    - dT is the paper's 100 steps, or less, down to 5, where a short run would have
      fewer than `updates` updates.
    - Ties go to the lower index, in place of noise of 1e-5 on |w|.
    - A step that updates the masks gets zero gradients, in place of none at all, so
      that momentum and weight decay act in it.
    - The optimiser's moments of grown weights are not reset, but have seen zero
      gradients for as long as the weight was out: at least dT steps, most of them
      always. As after a reset, AdamW's first steps of such a weight are several times
      as long as others.

Checked against:
    - github.com/google-research/rigl at d39fc7d, get_sparsities_erdos_renyi on 139
      lists of shapes (ResNet-18, MobileNetV2, ViT-Ti, random ones): the same dense
      layers, counts equal within 4 (it rounds the budget per layer).
    - Worked examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from math import cos, pi
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.network.layers import prunable
from methods.parts.pruning.masks import Sparsity, lowest, zero
from methods.parts.training.train import train


def erk_kept(shapes: Mapping[str, torch.Size], s: float) -> dict[str, int]:
    """Return how many weights each layer keeps: eps * sum(shape), at most all of them,
    n - round(s n) in all.
    """
    n = {name: shape.numel() for name, shape in shapes.items()}
    kept, left = dict(n), sum(n.values()) - round(s * sum(n.values()))
    sparse = {name: sum(shape) for name, shape in shapes.items()}  # raw density times n
    # eps * sum(shape) > n, eps = left / sum
    while dense := {
        name for name in sparse if left * sparse[name] > n[name] * sum(sparse.values())
    }:
        left -= sum(n[name] for name in dense)
        sparse = {name: size for name, size in sparse.items() if name not in dense}
    kept |= {name: left * size // sum(sparse.values()) for name, size in sparse.items()}
    remainders = sorted(sparse, key=lambda name: -(left * sparse[name] % sum(sparse.values())))
    for name in remainders[: left - sum(kept[name] for name in sparse)]:
        kept[name] += 1
    return kept


def moved(W: Tensor, gradient: Tensor, off: Tensor, k: int) -> Tensor:
    """Drop the k connections with the smallest |W| and grow the k with the largest
    |gradient| of those not kept; return the new mask of those off.
    """
    free = off | lowest(W.abs().masked_fill(off, torch.inf), k)
    return free & ~lowest((-gradient.abs()).masked_fill(~free, torch.inf), k)


def drop_fraction(t: int, alpha: float, T_end: int) -> float:
    """Return f(t), from alpha at 0 to nothing at T_end."""
    return alpha / 2 * (1 + cos(pi * t / T_end))


def random_off(W: Tensor, kept: int, generator: torch.Generator) -> Tensor:
    """Mark all but `kept` random entries of W."""
    return lowest(torch.randn(W.shape, generator=generator), W.numel() - kept).to(W.device)


@dataclass(frozen=True)
class RigL(Method):
    """Train a new model with `sparsity` of the prunable weights at zero, moving up to
    `alpha` of each layer's connections at each of some `updates` updates or more.
    """

    sparsity: Sparsity = 0.8
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.3
    updates: Annotated[int, Field(ge=1)] = 25

    family = "pruning"
    paper = "Evci et al., ICML 2020, arXiv 1911.11134"
    needs = "scratch"
    realisation = "masked"
    stochastic = True
    identity = {"sparsity": 0.0}
    strongest = {"sparsity": 0.99}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.sparsity == 0:
            return model
        model = data.narrower(1.0)
        weights = {name: layer.weight for name, layer in prunable(model).items()}
        kept = erk_kept({name: W.shape for name, W in weights.items()}, self.sparsity)
        off = {name: random_off(W, kept[name], data.generator(name)) for name, W in weights.items()}

        def mask(*_forward: Any) -> None:
            zero(model, off)

        hook = model.register_forward_pre_hook(mask)
        train(
            model,
            data,
            data.scratch,
            self.mover(model, weights, off, 3 * data.steps(data.scratch) // 4),
        )
        hook.remove()
        mask()
        return model

    def mover(
        self, model: nn.Module, weights: Mapping[str, Tensor], off: Mapping[str, Tensor], T_end: int
    ) -> Callable[[float], None]:
        """Return what happens to dense gradients before step t: every dT steps masks
        move and no gradient is left, else those of weights that are off go.
        """
        steps, dT = count(), max(5, min(100, T_end // self.updates))

        @torch.no_grad()
        def before_step(rate: float) -> None:
            t = next(steps)
            moving = t % dT == 0 and t < T_end
            for name, W in weights.items():
                assert W.grad is not None
                if moving:
                    k = int(drop_fraction(t, self.alpha, T_end) * int((~off[name]).sum()))
                    off[name].copy_(moved(W, W.grad, off[name], k))
                W.grad.masked_fill_(off[name], 0.0)
            for p in model.parameters() if moving else ():
                if p.grad is not None:
                    p.grad.zero_()

        return before_step
