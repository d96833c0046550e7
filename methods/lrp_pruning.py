"""LRP pruning: remove the channels, hidden units and heads through which the least
relevance of the true class flows, in steps, without any training.

Yeom, Seegerer, Lapuschkin, Binder, Wiedemann, Mueller, Samek, "Pruning by explaining: a
novel criterion for deep neural network pruning", Pattern Recognition 115, 2021, arXiv
1912.08881.

This is the paper's regime of scarce data: a few labelled samples per class and no
fine-tuning. Relevance 1 of the true class is handed down from its logit to the input,
layer by layer, on a copy of the model whose batch norms are folded.

A convolution shares its relevance out by the z+ rule, in proportion to the positive
products of input and weight, without bias. A Linear layer follows the epsilon rule, in
proportion to all products. ReLU and ReLU6 pass relevance on. Sums and average pooling
split it in proportion to what they add, and max pooling gives it to the winner.

The relevance of an activation a is

    R = a c

with c the gradient that arrives at a. So automatic differentiation does most of the
work: only convolutions and ReLU6 need another gradient than their own. Epsilon, which
keeps denominators away from 0, stands at the logits alone; elsewhere it would change
1e-6 of a share.

The score of unit i sums over all samples and positions:

    S_i = sum |R|

Scores are not normalised per layer; all units are ranked in one list, and anew before
each step.

Arguments:
    macs: multiply-accumulates (MACs) that may be left, as a share of dense's; 1 keeps
        dense as it is
    step: share of the original number of units that goes at a time, the last time only
        as many as the budget asks for; 1 ranks them only once
    per_class: labelled samples of each class on which relevance is taken
    bn_passes: passes over the calibration images by which the statistics of batch norms
        are re-estimated at the end; 0 leaves them, as the paper does

Assumed:
    - Only free units (`methods.parts.pruning.channels`: those that nothing outside of
      their block is coupled to) are ranked and counted; the last unit of a group stays.
    - The first convolution follows the z+ rule as well, so that no pixel bounds are
      needed. The z^B rule for it only tells pixels apart, and no score reads that.
    - Relevance of an output that has no positive term (z = 0) is lost, as in the
      authors' code.
    - An expansion channel is read by its depth-wise and by its point-wise convolution;
      its S is the sum over both.
    - No score of a ViT or Mixer depends on the rule for convolutions. S of a hidden
      unit or head is |input x gradient| of the logit where fc2 (of an MLP) or proj (of
      attention) reads it, divided by the logit as in a CNN.
    - Relevance is taken on 10 samples per class; the authors' code sweeps all of the
      training images.
    - Deviation: the statistics of batch norms are re-estimated at the end, which the
      paper does not do.
    - Models with squeeze-and-excitation are skipped: it multiplies activations, for
      which the paper has no rule.

Checked against:
    - github.com/seulkiyeom/LRP_pruning at 1844971, its autograd rules put into our
      trained models, z^B included, in float64: S of every group within 2e-5 of the
      largest on the digits ResNet and MobileNetV2 and on ResNet-20.
    - In the tests: a worked example; conservation (without biases the relevance of a
      sample is 1 at every layer); the rule written out with matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from timm.layers import SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn
from torch.nn import functional

from methods import Data, Method, Split
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import Layer
from methods.parts.pruning.channels import groups, remove
from methods.parts.pruning.masks import Passes, no_norms, recover
from methods.parts.pruning.ranking import global_order, prune_below

EPSILON, TINY = 1e-6, 1e-12  # of the epsilon rule at the logits; in the place of a z of 0


def handing_down(y: Tensor, z: Tensor) -> Tensor:
    """Return y with the gradient of z times y / z: relevance R = y c is handed down in
    the shares that make up z.
    """
    return y.detach() + (z - z.detach()) * (y / z.masked_fill(z == 0, TINY)).detach()


def z_plus(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return z = conv(max(x, 0), max(W, 0)) + conv(min(x, 0), min(W, 0)) without
    bias.
    """
    positive: Tensor = conv._conv_forward(x.clamp(min=0), conv.weight.clamp(min=0), None)
    negative: Tensor = conv._conv_forward(x.clamp(max=0), conv.weight.clamp(max=0), None)
    return positive + negative


def convolution(conv: nn.Conv2d, args: tuple[Tensor], y: Tensor) -> Tensor:
    """Hand relevance down by the z+ rule."""
    return handing_down(y, z_plus(conv, args[0]))


def activation(_module: nn.Module, args: tuple[Tensor], y: Tensor) -> Tensor:
    """Hand relevance down as it is, also where ReLU6 saturates."""
    return handing_down(y, args[0])


def explained(model: nn.Module, probe: Tensor) -> nn.Module:
    """Return a copy of `model`, batch norms folded, that computes the same, but with
    gradients c such that a c is the relevance of activation a.
    """
    copy = fold_batchnorms(deepcopy(model), probe).requires_grad_(False)
    for module in copy.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(convolution)
        elif isinstance(module, (nn.ReLU, nn.ReLU6)):
            module.inplace = False  # the rule needs what came in
            module.register_forward_hook(activation)
    return copy


def watch(layer: nn.Module, add: Callable[[Tensor], None]) -> None:
    """Call `add` with sum |a c| (features,) over samples and positions of the input a
    of `layer`, in each backward pass.
    """
    # maps (N, C, H, W), or tokens (N, L, D)
    axes = (0, 2, 3) if isinstance(layer, nn.Conv2d) else (0, 1)

    def before(_module: nn.Module, args: tuple[Tensor]) -> None:
        a = args[0].detach()
        args[0].register_hook(lambda c: add((a * c).abs().sum(axes)))

    layer.register_forward_pre_hook(before)


def relevance(model: nn.Module, names: Collection[str], split: Split) -> dict[str, Tensor]:
    """Return sum |R| (features,) over samples and positions at the input of each named
    layer, for relevance 1 of the true class of each sample.
    """
    copy, found = explained(model, split.images[:1]), {name: list[Tensor]() for name in names}
    for name, batches in found.items():
        watch(copy.get_submodule(name), batches.append)
    for x, labels in zip(split.images.split(128), split.labels.split(128), strict=True):
        logits = copy(x.clone().requires_grad_())
        z = logits.detach()
        logits.backward(
            functional.one_hot(labels, z.shape[1]) / (z + torch.where(z < 0, -EPSILON, EPSILON))
        )
    return {name: torch.stack(batches).sum(0) for name, batches in found.items()}


def scores(model: nn.Module, split: Split) -> list[Tensor]:
    """Return S (units,) of every group of `model`: the relevance of a unit wherever a
    layer reads it, summed over these layers.
    """
    found, names = groups(model), {module: name for name, module in model.named_modules()}
    read_by = [
        [names[layer] for layer in (*group.between, *group.readers) if isinstance(layer, Layer)]
        for group in found
    ]
    R = relevance(model, [name for layers in read_by for name in layers], split)
    return [
        torch.stack([R[name] for name in layers]).sum(0)[group.columns].sum(1)
        for group, layers in zip(found, read_by, strict=True)
    ]


def reference(split: Split, per_class: int, generator: torch.Generator) -> Split:
    """Draw `per_class` samples of each class of `split`."""
    order = torch.randperm(len(split.labels), generator=generator).to(split.labels.device)
    labels = split.labels[order]
    chosen = torch.cat([order[labels == label][:per_class] for label in labels.unique()])
    return Split(split.images[chosen], split.labels[chosen])


@dataclass(frozen=True)
class LRPPruning(Method):
    """Remove `step` of the units at a time, ranked on `per_class` samples, down to
    `macs` of the multiply-accumulates; then re-estimate the norms.
    """

    macs: Annotated[float, Field(gt=0, le=1)] = 0.5
    step: Annotated[float, Field(gt=0, le=1)] = 0.05
    per_class: Annotated[int, Field(ge=1)] = 10
    bn_passes: Passes = 1

    family = "pruning"
    paper = "Yeom et al. 2021, arXiv 1912.08881"
    needs = "labels"
    stochastic = True
    identity = {"macs": 1.0}
    strongest = {"macs": 0.25}

    def skip(self, model: nn.Module) -> str | None:
        if not groups(model):
            return (
                "no free channels: every layer is coupled to a residual stream or of an unknown "
                "kind"
            )
        if any(isinstance(module, (SqueezeExcite, SEModule)) for module in model.modules()):
            return "squeeze-and-excitation multiplies activations, for which the paper has no rule"
        return no_norms(model, self.bn_passes)

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.macs == 1:
            return model
        split = reference(data.train, self.per_class, data.generator("reference"))
        limit, step = (
            self.macs * data.macs(model),
            max(1, round(self.step * sum(group.units for group in groups(model)))),
        )
        while data.macs(model) > limit:
            order = global_order(scores(model, split))
            smaller = deepcopy(model)
            remove(smaller, order[:step])
            if data.macs(smaller) <= limit or step >= len(order):
                prune_below(model, order[:step], limit, data)
            else:
                model = smaller
        return recover(model, data, self.bn_passes)
