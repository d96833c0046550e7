"""LayerCollapse: make the activation between two fully connected layers linear by a
short regularised training, then merge the two into one.

Zibakhsh Shabgahi, Shariff, Koushanfar, "LayerCollapse: Adaptive compression of neural
networks", 2023, arXiv 2311.17943.

The method works on pairs Linear - activation - [BatchNorm1d] - Linear, where the norm
may be missing. The activation of a pair becomes

    phi_a(z) = max(0, z) + a min(0, z)

with one learnable slope a. Training pulls a towards 1, where phi_a is the identity. If
then |a - 1| < tau, the two layers W1, b1 and W2, b2 are collapsed to a single one:

    W = W2 S W1,  b = W2 (S (b1 - mean) + beta) + b2

S is the diagonal scale of the norm, gamma / sqrt(var + eps), and mean and beta are its
running mean and its shift; without a norm all three are missing. A pair beyond tau is
kept, with its learned slope.

The deepest pair goes first, with one stage of training per pair; there is no training
after the last collapse. Only pairs that shrink count: those of d_in inputs, h hidden
units and d_out outputs with h > d_in d_out / (d_in + d_out + 1).

The pull is the authors' decoupled decay for Adam. Before each step of the optimiser,
whose learning rate is rate,

    a <- a - 2 rate gp (a - 1)

while a is free of weight decay. This keeps |a - 1| below about 1 / (2 gp), whatever the
gradient says.

Arguments:
    pairs: how many pairs, from the deepest on, are trained to be linear and then
        collapsed; 0 leaves the model as it is, untrained
    threshold: tau, the distance of a from 1 below which a pair is collapsed; the
        authors' default is 0.05
    strength: gp, the strength of the pull; 0 leaves the slope to the gradient. The
        authors take 10 at rate 1e-4 over thousands of steps. The pull of a stage is
        about exp(-2 gp sum of rates), and one epoch of the digits track sums to 0.0076
        only; hence 250, which step by step leaves 1 - a = 0.008.
    slope: a at first, where 0 is ReLU and 1 the identity; the authors' default is 0.01

Assumed:
    - The pull is decoupled for vision too. There the authors add the term to the loss
      of SGD.
    - The track's fine-tuning epochs are split over the stages as evenly as whole epochs
      allow. Where the pairs outnumber the epochs, a stage takes several pairs, so that
      the budget of training holds.
    - The pull acts on the pairs of the stage at hand only.

Checked against:
    - The authors' CollapsibleMlp.collapse: equal in float64, with and without the norm.
    - The authors' CustomAdamW: equal slopes over 50 steps.
    - The parameter counts that the authors print for ViT-B/16 and Mixer-B/16: equal to
      the unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from timm.layers import Mlp
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.depth.merge import affine, merge, normalisation, scaled
from methods.parts.training.train import train


@torch.no_grad()
def pull(a: Tensor, rate: float, gp: float) -> None:
    """Decay the slope towards 1: a <- a - 2 rate gp (a - 1), in place."""
    a.sub_(2 * rate * gp * (a - 1))


def worthwhile(mlp: Any) -> bool:
    """Say whether collapsing saves parameters: h (d_in + d_out + 1) > d_in d_out, with
    h hidden units.
    """
    h, d_in, d_out = mlp.fc1.out_features, mlp.fc1.in_features, mlp.fc2.out_features
    return bool(h * (d_in + d_out + 1) > d_in * d_out)


@torch.no_grad()
def collapse(mlp: Any) -> None:
    """Put one Linear, merged in float64, in the place of fc1 and nothing in that of
    activation, dropout, norm and fc2; exact at a = 1.
    """
    first, last = affine(mlp.fc1), affine(mlp.fc2)
    if isinstance(mlp.norm, nn.BatchNorm1d):
        first = scaled(first, *normalisation(mlp.norm))
    W, b = (tensor.to(mlp.fc1.weight.dtype) for tensor in merge(first, last))
    mlp.fc1.weight, mlp.fc1.bias, mlp.fc1.out_features = nn.Parameter(W), nn.Parameter(b), len(W)
    mlp.act, mlp.drop1, mlp.norm, mlp.fc2 = (
        nn.Identity(),
        nn.Identity(),
        nn.Identity(),
        nn.Identity(),
    )


def collapse_if_linear(mlp: Any, tau: float) -> None:
    """Collapse the pair if |a - 1| < tau; otherwise keep it as it is."""
    if abs(mlp.act.weight.item() - 1) < tau:
        collapse(mlp)


def pairs_of(model: nn.Module) -> list[nn.Module]:
    """Return the pairs that are worth collapsing, deepest first."""
    mlps = [module for module in model.modules() if isinstance(module, Mlp)]
    linear = [
        mlp for mlp in mlps if isinstance(mlp.fc1, nn.Linear) and isinstance(mlp.fc2, nn.Linear)
    ]
    return [
        mlp
        for mlp in reversed(linear)
        if isinstance(mlp.norm, (nn.Identity, nn.BatchNorm1d)) and worthwhile(mlp)
    ]


def stages(pairs: int, epochs: int) -> list[tuple[int, int]]:
    """Split both over as many stages as there are pairs, or epochs if those are fewer:
    (pairs, epochs) of each, the larger first.
    """
    count = min(pairs, max(1, epochs))
    return [
        (len(p), len(e))
        for p, e in zip(
            torch.arange(pairs).tensor_split(count),
            torch.arange(epochs).tensor_split(count),
            strict=True,
        )
    ]


@dataclass(frozen=True)
class LayerCollapse(Method):
    """Make the activations of the deepest `pairs` pairs linear by training, and
    collapse the pairs whose slope comes within `threshold` of 1.
    """

    pairs: Annotated[int, Field(ge=0)] = 1
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.05
    strength: Annotated[float, Field(ge=0)] = 250.0
    slope: Annotated[float, Field(ge=0, le=1)] = 0.01

    family = "depth"
    paper = "Zibakhsh Shabgahi et al. 2023, arXiv 2311.17943"
    needs = "fine-tune"
    stochastic = True
    identity = {"pairs": 0}
    strongest = {"pairs": 6}

    def skip(self, model: nn.Module) -> str | None:
        found = len(pairs_of(model))
        if not found:
            return "no Linear - activation - Linear pair that collapsing makes smaller"
        return (
            f"{self.pairs} pairs asked for, but only {found} can be collapsed"
            if self.pairs > found
            else None
        )

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        waiting: list[Any] = pairs_of(model)
        for count, epochs in stages(self.pairs, round(data.fine_tune.epochs)) if self.pairs else []:
            at_hand, waiting = waiting[:count], waiting[count:]
            self.linearise(model, at_hand, data, epochs)
            for mlp in at_hand:
                collapse_if_linear(mlp, self.threshold)
        return model

    def linearise(self, model: nn.Module, at_hand: list[Any], data: Data, epochs: int) -> None:
        """Give the pairs a slope and train `model` for `epochs` while the slopes are
        pulled towards 1.
        """

        def before_step(rate: float) -> None:
            for mlp in at_hand:
                pull(mlp.act.weight, rate, self.strength)

        for mlp in at_hand:
            mlp.act = nn.PReLU(1, init=self.slope, device=mlp.fc1.weight.device)
        train(model, data, replace(data.fine_tune, epochs=epochs), before_step)
