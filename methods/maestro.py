"""Maestro: train layers as products of factors with ordered dropout of their
components, so that the last ones can be cut off, as many as a budget asks.

Horvath, Laskaridis, Rajput, Wang, "Maestro: Uncovering Low-Rank Structures via
Trainable Decomposition", ICML 2024, arXiv 2308.14929.

The weight of a layer, as the matrix W = weight.flatten(1), becomes the product A B of
two trained factors of full rank. They start from the SVD W = U S V^T as A = U S^1/2 and
B = S^1/2 V^T. Component i is column i of A together with row i of B. This is done to
every Conv2d and Linear but the stem, the classifier and depth-wise convolutions.

Ordered dropout teaches the first components of a layer to do without the later ones.
Each step draws one pair (layer, b), a layer and a number of its components; all pairs
come, in random order, before one comes again. The loss of the step is

    CE(full) + CE(partial, softmax(full)) + lam sum_i (||A[:, i:]|| + ||B[i:]||)

"full" is the pass with all components, "partial" the pass in which the drawn layer has
only its first b. The targets softmax(full) are detached. A[:, i:] and B[i:] are the
components from i on, and the sum, a hierarchical group lasso, runs over the components
of all layers.

The importance of component i is ||A[:, i:]|| ||B[i:]||, which falls with i; here it is
taken as a share of that of its layer's first component. After each epoch of ordered
dropout, components of less importance than `eps` are removed for good.

Then the ranks are cut to the budget: over all layers, the least important component
goes, until the layers fit. A layer whose two factors would not be smaller than W
becomes a dense layer again, with all the components that it had before the cut, and
counts as one. One component of each layer stays, even if that exceeds the budget. The
result is fine-tuned.

Arguments:
    rho: share of the weights of these layers, counted together, that remains; 1 keeps
        dense, untrained
    share: share of the track's fine-tuning epochs that train with ordered dropout,
        before the cut; the others train what is left. 1 cuts after all training; 0 is
        an SVD with ranks by importance, fine-tuned. Chosen on validation images of
        digits. In so few epochs it is only on the vit that ordered dropout earns back
        what it takes from fine-tuning; elsewhere 0 is better.
    lam: weight of the lasso in the loss; 0 switches it off. Chosen on validation images
        of digits.
    eps: importance, as a share of that of the layer's first component, below which a
        component is removed after an epoch; 0 leaves all of them to the cut

Assumed:
    - Training starts from the trained dense model. The paper trains for hundreds of
      epochs from scratch.
    - The track's fine-tuning epochs are split in two parts, before and after the cut,
      each with its own warm-up and decay.
    - Deviation: the cut follows from a budget, `rho`. The paper cuts at a fixed
      importance and tunes `lam`.
    - Importances are shares, since a batch norm makes the scale of the weights before
      it meaningless. Absolute ones cost 5 to 47 points of validation accuracy on digits
      at rho 0.25, share 0.
    - The optimiser is the track's. AdamW scales its steps by the size of the gradients,
      and so divides `lam` by it.
    - BatchNorm statistics are re-estimated at the end, on the calibration images.

Checked against:
    - github.com/SamuelHorvath/Maestro-LoD at 0003014, a LeNet decomposed by both:
      factors equal.
    - Its training: after 100 steps of SGD on the same images, with its sampler's cuts,
      at lam 0, 0.001 and 0.01, factors are equal to 2e-7 and importances to 1e-5, and
      three thresholds give the same ranks.
    - In the tests: a diagonal matrix by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from methods import Data, Method
from methods.parts.low_rank.factors import factors, pair
from methods.parts.network.layers import Layer, prunable
from methods.parts.pruning.masks import recover
from methods.parts.training.losses import soft_loss, with_loss
from methods.parts.training.train import train

TINY = 1e-6  # the least norm to divide by


class Components(nn.Module):
    """The parametrisation W = A diag(mask) B of a weight; mask (r,) is 1 for the
    components that are there, then 0.
    """

    mask: Tensor

    def __init__(self, W: Tensor) -> None:
        super().__init__()
        self.shape = W.shape
        self.register_buffer("mask", W.new_ones(min(W.flatten(1).shape)))

    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        return (A * self.mask @ B).view(self.shape)

    def right_inverse(self, W: Tensor) -> tuple[Tensor, Tensor]:
        return factors(W.flatten(1), len(self.mask))


@dataclass(frozen=True)
class Factored:
    """A layer whose weight is made of the parameters A (m, r) and B (r, n)."""

    layer: Layer
    A: nn.Parameter
    B: nn.Parameter
    components: Components

    @property
    def kept(self) -> int:
        return int(self.components.mask.sum())


def decompose(layer: Layer) -> Factored:
    """Let the weight of `layer` be the product of the factors of its SVD."""
    parametrize.register_parametrization(layer, "weight", Components(layer.weight.detach()))
    weight = cast(Any, layer.get_submodule("parametrizations.weight"))
    return Factored(layer, weight.original0, weight.original1, weight[0])


def suffix_norms(F: Tensor) -> Tensor:
    """Return ||F[i:]||_F (r,) of F (r, d)."""
    return F.square().sum(1).flip(0).cumsum(0).flip(0).sqrt()


def lasso_gradient(F: Tensor) -> Tensor:
    """Return the gradient (r, d) of sum_i ||F[i:]||_F, the hierarchical group lasso:
    F[j] sum_{i <= j} 1 / ||F[i:]||.
    """
    return F * suffix_norms(F).clamp(min=TINY).reciprocal().cumsum(0)[:, None]


def importance(A: Tensor, B: Tensor) -> Tensor:
    """Return ||A[:, i:]|| ||B[i:]|| (r,), which falls with i."""
    return suffix_norms(A.T) * suffix_norms(B)


def relative(part: Factored) -> Tensor:
    """Return the importance of the components that are there, as shares of the first
    one's.
    """
    found = importance(part.A.detach()[:, : part.kept], part.B.detach()[: part.kept])
    return found / found[0].clamp(min=TINY**2)


def pairs(ranks: Sequence[int], draw: torch.Generator) -> Iterator[tuple[int, int]]:
    """Yield for ever, in random order without replacement, the pairs of a layer and a
    rank 1, ..., ranks[layer].
    """
    every = [(layer, b) for layer, rank in enumerate(ranks) for b in range(1, rank + 1)]
    while True:
        yield from (every[k] for k in torch.randperm(len(every), generator=draw).tolist())


def mask_key(name: str) -> str:
    """Return what the model's state calls the mask of layer `name`: torch lists the
    parametrisations of a weight, and `Components` is number 0.
    """
    return f"{name}.parametrizations.weight.0.mask"


class OrderedDropout(nn.Module):
    """A model of factored layers with the loss of Maestro, but for the lasso, which
    `add_lasso` adds before each step.

    The full pass takes each layer's own mask; the partial pass calls the same model
    with `partial_masks`, by their `mask_key`, in their places: of one layer the first b
    components, of the others all that are there. Both change in place.
    """

    def __init__(
        self, model: nn.Module, parts: Mapping[str, Factored], draw: torch.Generator
    ) -> None:
        super().__init__()
        self.model, self.parts, self.draw = model, list(parts.values()), draw
        self.partial_masks = {
            mask_key(name): part.components.mask.clone() for name, part in parts.items()
        }
        self.shrink(0.0)

    def forward(self, x: Tensor) -> Tensor:
        full = self.model(x)
        partial = functional_call(self.model, self.partial_masks, (x,))
        return with_loss(full, soft_loss(partial, full, 1.0))

    def shrink(self, eps: float) -> None:
        """Remove the components of less than `eps` of the importance of their layer's
        first, and begin a new round of samples.
        """
        for part in self.parts:
            kept = max(1, int((relative(part) >= eps).sum()))
            part.components.mask[kept:].zero_()
        self.samples = pairs([part.kept for part in self.parts], self.draw)
        self.sample()

    def sample(self) -> None:
        """Set the masks of the partial pass: as the full one's, but one layer has its
        first b components only.
        """
        layer, b = next(self.samples)
        masks = list(self.partial_masks.values())
        for mask, part in zip(masks, self.parts, strict=True):
            mask.copy_(part.components.mask)
        masks[layer][b:].zero_()

    @torch.no_grad()
    def add_lasso(self, lam: float) -> None:
        """Add `lam` times the gradient of the lasso of the components that are
        there.
        """
        for part in self.parts:
            assert part.A.grad is not None and part.B.grad is not None
            part.A.grad.add_(lasso_gradient((part.A * part.components.mask).T).T, alpha=lam)
            part.B.grad.add_(lasso_gradient(part.B * part.components.mask[:, None]), alpha=lam)


def stored(r: int, m: int, n: int) -> int:
    """Return how many weights a layer m x n of rank r takes: as a pair or, where that
    is no smaller, dense.
    """
    return min(r * (m + n), m * n)


def least_important(parts: Sequence[Factored]) -> list[int]:
    """Return the layer of each component but the first of every layer, the least
    important one's first.
    """
    order = sorted(
        (value, layer, -i)
        for layer, part in enumerate(parts)
        for i, value in enumerate(relative(part).tolist())
        if i > 0
    )
    return [layer for _, layer, _ in order]


def cut(parts: Sequence[Factored], rho: float) -> list[int]:
    """Return the rank of each layer when the least important components, always the
    last of their layer, are gone until `rho` of all weights remain.
    """
    shapes = [(len(part.A), part.B.shape[1]) for part in parts]
    budget = rho * sum(m * n for m, n in shapes)
    ranks = [part.kept for part in parts]
    for layer in least_important(parts):
        if sum(stored(r, m, n) for r, (m, n) in zip(ranks, shapes, strict=True)) <= budget:
            break
        ranks[layer] -= 1
    return ranks


def plain(part: Factored, r: int) -> nn.Module:
    """Return the layer as a pair of rank r where that is smaller, else as the dense
    layer that all its components make.
    """
    A, B = part.A.detach()[:, :r].clone(), part.B.detach()[:r].clone()
    layer = part.layer
    parametrize.remove_parametrizations(layer, "weight")
    smaller = r * (len(A) + B.shape[1]) < layer.weight.numel()
    return pair(layer, A, B, layer.bias) if smaller else layer


@dataclass(frozen=True)
class Maestro(Method):
    """Train factors with ordered dropout for `share` of the epochs, cut them to `rho`
    of the weights, and fine-tune what is left.
    """

    rho: Annotated[float, Field(gt=0, le=1)] = 0.5
    share: Annotated[float, Field(ge=0, le=1)] = 0.25
    lam: Annotated[float, Field(ge=0)] = 1e-3
    eps: Annotated[float, Field(ge=0, lt=1)] = 1e-3

    family = "low-rank"
    paper = "Horvath et al. 2024, arXiv 2308.14929"
    needs = "fine-tune"
    stochastic = True
    identity = {"rho": 1.0}
    strongest = {"rho": 0.05}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.rho == 1:
            return model
        parts = {name: decompose(layer) for name, layer in prunable(model).items()}
        self.train_ordered(model, parts, data)
        ranks = cut(list(parts.values()), self.rho)
        for (name, part), r in zip(parts.items(), ranks, strict=True):
            model.set_submodule(name, plain(part, r))
        train(model, data, replace(data.fine_tune, epochs=(1 - self.share) * data.fine_tune.epochs))
        return recover(model, data, 1)

    def train_ordered(self, model: nn.Module, parts: Mapping[str, Factored], data: Data) -> None:
        """Train the factors with ordered dropout; shrink after each epoch."""
        ordered = OrderedDropout(model, parts, data.generator("maestro"))
        schedule = replace(data.fine_tune, epochs=self.share * data.fine_tune.epochs)
        per_epoch = data.steps(replace(data.fine_tune, epochs=1.0))
        steps = count(1)

        def before_step(rate: float) -> None:
            ordered.add_lasso(self.lam)
            if next(steps) % per_epoch == 0:
                ordered.shrink(self.eps)
            else:
                ordered.sample()

        train(ordered, data, schedule, before_step)
