"""LAPP: while the network trains from scratch, one learnable threshold per convolution
decides which filters go; a bypass carries on in their place.

Zhai, Guo, Liu, Xing, Xu, "LAPP: Layer Adaptive Progressive Pruning for Compressing CNNs
from Scratch", 2023, arXiv 2309.14157.

There is no public code, and we know the abstract alone. It says that each layer has a
learnable threshold and the network a FLOPs constraint; that both task loss and
constraint guide the thresholds while importance scores change; that pruning happens in
the first epochs; and that each convolution to be pruned gets a lightweight bypass
before training. Everything else is assumed, what follows here included.

A pruned convolution computes

    y = m conv(x) + B(x),    m = 1[q > t]

before the norm. B is the bypass. The mask m is 1 for filters whose score q is above the
layer's threshold t, and 0 for the others. The score q_i of filter i is mean |W_i| over
the mean of that in the layer; t starts at 0. Gradient descent moves the thresholds on

    task loss + strength (max(0, F - r) / (1 - r))^2

with F the MACs of the network, bypasses included, as a share of dense's, and r the
budget. After the pruning phase the masks are brought to the budget and frozen, and
training goes on.

Arguments:
    macs: r, the multiply-accumulates (MACs) that may be left, bypasses included, as a
        share of dense's; 1 keeps dense as it is
    phase: share of the training, from its start, in which filters are pruned; one sixth
        is five epochs where there are 30
    strength: weight of the FLOPs constraint; 0 leaves the thresholds to the task loss
    rate: how fast thresholds move: each step is rate * layers / steps times the
        gradient, with the layers and steps of the pruning; 0 leaves them at 0
    tau: width of the sigmoid whose gradient the masks have, in units of the score q

Assumed:
    - Pruned are the ungrouped convolutions without bias that stand directly in residual
      blocks.
    - A bypass B has the same kernel size as its convolution, in gcd(inputs, outputs)
      groups.
    - Masks have the gradient of sigmoid((q - t) / tau), for weights as for thresholds,
      except that the penalty moves thresholds alone.
    - tau is 1/4: scores start near 1, and at 0.05 the gradient at t = 0 is 4e-8, so
      that no threshold ever moved.
    - Thresholds take plain steps of rate * layers / steps; a constant rate would mean
      another thing for every length and depth. They stay in [0, max q].
    - At the end of the pruning phase one offset to all thresholds meets the budget,
      whichever side they ended on. Filters that still fit stay, best margin q - t
      first.
    - Masks are then frozen, and training goes on in its schedule.
    - Training is the track's recipe from scratch.
    - Convolutions are made small at the end; until then B is added to the kernel. Both
      are the same function.

Checked against:
    - Nothing of the authors': there is no code.
    - In the tests: a worked example.
    - In the tests: closed forms of the gate's slope and of the penalty.
    - In the tests: the masked layer, the small one, and convolution plus bypass written
      out: equal to 1e-5.
    - The counter of MACs: the budget is met from below within half a percent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from methods import Data, Method
from methods.parts.network.layers import blocks
from methods.parts.training.train import train


def scores(W: Tensor) -> Tensor:
    """Return q_i = mean |W_i| over the mean of that, for the n filters of W (n, inputs,
    k, k).
    """
    magnitude = W.abs().mean((1, 2, 3))
    return magnitude / magnitude.mean()


def gates(q: Tensor, t: Tensor, tau: float) -> Tensor:
    """Return m = 1[q > t], with the gradient of g = sigmoid((q - t) / tau)."""
    g = torch.sigmoid((q - t) / tau)
    return (q > t).float() + g - g.detach()


def penalty(F: Tensor, r: float) -> Tensor:
    """Return (max(0, F - r) / (1 - r))^2 for multiply-accumulates F and their budget r,
    both relative to dense.
    """
    return ((F - r).clamp(min=0) / (1 - r)).square()


def by_margin(margins: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return (layer, filter) of all filters, smallest margin first."""
    ranked = sorted(
        (margin, layer, i)
        for layer, of_layer in enumerate(margins)
        for i, margin in enumerate(of_layer.tolist())
    )
    return [(layer, i) for _, layer, i in ranked]


def survivors(
    margins: Sequence[Tensor], c: Sequence[int], total: int, budget: float
) -> list[Tensor]:
    """Mark the filters left by the one offset to all thresholds that meets `budget`;
    those that still fit come back, largest margin q - t first.

    margins: per layer (n,); c: MACs of one filter, by layer; total: MACs with all
    filters.
    """
    kept = [torch.ones(len(margin), dtype=torch.bool) for margin in margins]
    gone = []
    for layer, i in by_margin(margins):
        if total <= budget:
            break
        kept[layer][i] = False
        total -= c[layer]
        gone.append((layer, i))
    for layer, i in reversed(gone):
        if total + c[layer] <= budget:
            kept[layer][i] = True
            total += c[layer]
    return kept


def like(conv: Any, weight: Tensor, groups: int) -> nn.Conv2d:
    """Return `conv` with another weight (n, inputs of a group, k, k) and `groups`."""
    geometry = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    new = nn.Conv2d(conv.in_channels, len(weight), *geometry, groups, bias=False, device="meta")
    new.weight = nn.Parameter(weight.detach().clone())
    return new


class Bypass(nn.Module):
    """B, a convolution of the shape of `conv` in gcd(inputs, outputs) groups, which
    runs as a part of the kernel of `conv`.
    """

    def __init__(self, conv: nn.Conv2d, generator: torch.Generator) -> None:
        super().__init__()
        n, device = conv.out_channels, conv.weight.device
        self.groups = gcd(conv.in_channels, n)
        inputs = conv.in_channels // self.groups  # of one group
        weight = torch.empty(n, inputs, *conv.kernel_size)
        bound = weight[0].numel() ** -0.5
        self.weight = nn.Parameter(weight.uniform_(-bound, bound, generator=generator).to(device))
        group = torch.arange(self.groups, device=device)
        of_output = group.repeat_interleave(n // self.groups)
        of_input = group.repeat_interleave(inputs)
        # 1 where output and input are of one group
        self.block = (of_output[:, None] == of_input).float()[:, :, None, None]

    def kernel(self) -> Tensor:
        """Return the weight as that of one group: 0 from inputs of other groups."""
        return self.block * self.weight.repeat(1, self.groups, 1, 1)


class Gated(nn.Module):
    """A convolution of n filters while it trains: y = m conv(x) + B(x); once frozen, m
    is `mask`.

    Each backward pass leaves dLoss/dt in `slope`: t is no parameter, so that the shared
    optimiser does not move it.
    """

    def __init__(self, conv: nn.Conv2d, tau: float, generator: torch.Generator) -> None:
        super().__init__()
        self.conv, self.tau = conv, tau
        self.bypass = Bypass(conv, generator)
        # tensors, changed in place: a CUDA graph of the pass sees what they are then
        self.t = conv.weight.new_zeros(())
        self.slope = conv.weight.new_zeros(())
        self.mask = conv.weight.new_ones(conv.out_channels)
        self.frozen = conv.weight.new_zeros((), dtype=torch.bool)
        self.places = 0  # of a map that a filter gives, known after a forward pass

    @property
    def c(self) -> int:
        """MACs of one filter."""
        return self.places * self.conv.weight[0].numel()

    @property
    def b(self) -> int:
        """MACs of the bypass."""
        return self.places * self.bypass.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        kernel = self.m()[:, None, None, None] * conv.weight + self.bypass.kernel()
        y = functional.conv2d(x, kernel, None, conv.stride, conv.padding, conv.dilation)
        self.places = y[0, 0].numel()
        return y

    def m(self) -> Tensor:
        """Return m (n,): the gates at t, or `mask` once frozen; backward, dLoss/dt goes
        to `slope`.
        """
        t = self.t.clone().requires_grad_()
        t.register_hook(self.slope.copy_)
        return torch.where(self.frozen, self.mask, gates(scores(self.conv.weight), t, self.tau))

    def q(self) -> Tensor:
        """Return the scores (n,) of the filters, for pruning."""
        return scores(self.conv.weight.detach())

    def move(self, step: Tensor) -> None:
        """Take `step` off t, within [0, max q]."""
        self.t.sub_(step).clamp_(min=0).clamp_(max=self.q().max())

    def freeze(self, mask: Tensor) -> None:
        """Let `mask` be m from now on."""
        self.mask.copy_(mask)
        self.frozen.fill_(True)

    def small(self) -> nn.Module:
        """Return the same function with the kept filters in a convolution of their
        own.
        """
        bypass = like(self.conv, self.bypass.weight, self.bypass.groups)
        kept = self.mask.nonzero().flatten()
        if len(kept) == 0:
            return bypass
        filters = like(self.conv, self.conv.weight.index_select(0, kept), 1)
        if len(kept) == len(self.mask):
            return Bypassed(bypass, filters)
        return Bypassed(bypass, nn.Sequential(filters, Spread(self.mask)))


class Spread(nn.Module):
    """Put maps (N, kept, H, W) at their channels of (N, n, H, W), zeros elsewhere."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        # behind the kept maps lies one of zeros
        self.place = nn.Buffer(torch.where(mask > 0, mask.cumsum(0) - 1, mask.sum()).long())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros_like(x[:, :1])], 1).index_select(1, self.place)


class Bypassed(nn.Module):
    """y = B(x) + what the kept filters give."""

    def __init__(self, bypass: nn.Module, kept: nn.Module) -> None:
        super().__init__()
        self.bypass, self.kept = bypass, kept

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bypass(x) + self.kept(x)
        return y


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the ungrouped convolutions that stand directly in a residual block of
    `model`, by name.
    """
    found = {
        f"{block}.{name}": layer
        for block, module in blocks(model).items()
        for name, layer in module.named_children()
    }
    return {
        name: layer
        for name, layer in found.items()
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.bias is None
    }


@dataclass(frozen=True)
class LAPP(Method):
    """Train a fresh network, pruned in the first `phase` of the training to `macs` of
    dense's multiply-accumulates, bypasses included.
    """

    macs: Annotated[float, Field(gt=0, le=1)] = 0.5
    phase: Annotated[float, Field(gt=0, le=1)] = 1 / 6
    strength: Annotated[float, Field(ge=0)] = 10.0
    rate: Annotated[float, Field(ge=0)] = 0.3
    tau: Annotated[float, Field(gt=0)] = 0.25

    family = "pruning"
    paper = "Zhai et al. 2023, arXiv 2309.14157"
    needs = "scratch"
    stochastic = True
    identity = {"macs": 1.0}
    strongest = {"macs": 0.25}

    def skip(self, model: nn.Module) -> str | None:
        return None if convolutions(model) else "no convolution inside a residual block"

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Gate a fresh network, train it, and make its gated convolutions small."""
        if self.macs == 1:
            return model
        fresh = data.narrower(1.0).eval()
        generator = data.generator("bypass")
        layers = {
            name: Gated(conv, self.tau, generator) for name, conv in convolutions(fresh).items()
        }
        for name, layer in layers.items():
            fresh.set_submodule(name, layer)
        # each layer sees its size
        fresh(torch.zeros(1, *data.image_shape, device=next(fresh.parameters()).device))
        steps = max(1, round(self.phase * data.steps(data.scratch)))
        moves = self.pruning(list(layers.values()), data.macs(model), steps)
        next(moves)
        train(fresh, data, data.scratch, lambda _rate: next(moves, None))
        for name, layer in layers.items():
            fresh.set_submodule(name, layer.small())
        return fresh

    def pruning(self, layers: list[Gated], dense: int, steps: int) -> Iterator[None]:
        """Check the budget; then, as often as it is resumed, move each t against d(task
        + strength penalty)/dt; after `steps` of that freeze the masks.
        """
        total = dense + sum(layer.b for layer in layers)
        self.check_budget(layers, dense, total)
        rate = self.rate * len(layers) / steps
        for _ in range(steps):
            yield
            slopes = self.penalty_slopes(layers, dense, total)
            for layer, slope in zip(layers, slopes, strict=True):
                layer.move(rate * (layer.slope + slope))
        margins = [layer.q() - layer.t for layer in layers]
        masks = survivors(margins, [layer.c for layer in layers], total, self.macs * dense)
        for layer, mask in zip(layers, masks, strict=True):
            layer.freeze(mask)

    def check_budget(self, layers: list[Gated], dense: int, total: int) -> None:
        """Raise ValueError if even without any filter of `layers` more than the budget
        of `dense` is left of `total`.
        """
        least = total - sum(layer.c * len(layer.mask) for layer in layers)
        if least > self.macs * dense:
            raise ValueError(
                f"macs {self.macs} is out of reach: bypasses and fixed layers alone take "
                f"{least / dense:.3f} of dense; ask for more"
            )

    def penalty_slopes(self, layers: list[Gated], dense: int, total: int) -> tuple[Tensor, ...]:
        """Return d(strength penalty)/dt of each layer, F = (total - MACs of what the
        gates shut off) / dense.
        """
        t = [layer.t.clone().requires_grad_() for layer in layers]
        gone = [
            layer.c * (1 - gates(layer.q(), t_l, self.tau)).sum()
            for layer, t_l in zip(layers, t, strict=True)
        ]
        F = (total - torch.stack(gone).sum()) / dense
        return torch.autograd.grad(self.strength * penalty(F, self.macs), t)
