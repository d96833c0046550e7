"""Network Slimming: train on with an L1 penalty on the scales of the batch norms,
remove the channels with the smallest scales, then fine-tune.

Liu, Li, Shen, Huang, Yan, Zhang, "Learning Efficient Convolutional Networks through
Network Slimming", ICCV 2017, arXiv 1708.06519.

A batch norm multiplies each channel by a learned scale gamma. In the sparse phase the
loss has the penalty s sum |gamma|: each step adds its subgradient

    s sign(gamma)

to the gradient. Then the |gamma| of all groups of channels are ranked in one list and
the channels with the lowest go, each with its shift beta. After that s = 0 and training
goes on.

The scales are those of the last BatchNorm of a group of free channels
(`methods.parts.pruning.channels`): bn1 in a BasicBlock, bn1 and bn2 in a Bottleneck,
bn2 in an InvertedResidual.

The paper also drops channels where a pre-activation block reads the residual stream.
That is not offered: our blocks are post-activation and have no norm there.

Arguments:
    macs: multiply-accumulates (MACs) that may be left, as a share of dense's; 1 keeps
        dense as it is
    s: weight of the penalty; 0 ranks the scales of a model that was merely trained on
    share: share of the track's fine-tuning budget that the sparse phase takes; 0 ranks
        the scales of dense itself, 1 leaves nothing for fine-tuning after the removal

Assumed:
    - Deviation: the dense model is the start; the paper trains from scratch.
    - Deviation: both phases share the track's fine-tuning budget, each with its own
      warm-up and decay; the paper takes 160 epochs for each phase.
    - Only the scales that are ranked are penalised; the authors penalise every norm.
    - How many channels go is what meets the MACs budget; the best of each group stays.
    - s is above the paper's 1e-4 and 1e-5, because few steps have to move the scales.
    - The subgradient joins the gradient before the optimiser, as in the paper. What s
      achieves therefore depends on the optimiser: under AdamW it counts against the
      scales' own gradients, under SGD against the scales' size.

Checked against:
    - github.com/Eric-mingjie/network-slimming at b395dc0: its penalty step run beside
      ours (50 steps of SGD with momentum, all parameters equal), and its global
      threshold (the same channels at 10, 40 and 70 % of 48).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.pruning.channels import Group, groups, prune_to_macs
from methods.parts.pruning.ranking import global_order
from methods.parts.training.train import train


def scales(found: Sequence[Group]) -> list[nn.Parameter]:
    """Return gamma (units,) of the last BatchNorm2d of each group that has one."""
    norms = [
        [module for module in group.between if isinstance(module, nn.BatchNorm2d)]
        for group in found
    ]
    return [norm[-1].weight for norm in norms if norm]


@torch.no_grad()
def add_subgradient(gammas: Sequence[nn.Parameter], s: float) -> None:
    """Add s sign(gamma), a subgradient of s |gamma|_1, to the gradient of each of
    `gammas`.
    """
    for gamma in gammas:
        assert gamma.grad is not None
        gamma.grad.add_(gamma.sign(), alpha=s)


def importance(gammas: Sequence[nn.Parameter]) -> list[Tensor]:
    """Return |gamma| (units,) of each group."""
    return [gamma.detach().abs() for gamma in gammas]


@dataclass(frozen=True)
class NetworkSlimming(Method):
    """Train on for `share` of the budget with penalty `s`, remove channels down to
    `macs` of the multiply-accumulates, and fine-tune.
    """

    macs: Annotated[float, Field(gt=0, le=1)] = 0.5
    s: Annotated[float, Field(ge=0)] = 0.001
    share: Annotated[float, Field(ge=0, le=1)] = 0.25

    family = "pruning"
    paper = "Liu et al. 2017, arXiv 1708.06519"
    needs = "fine-tune"
    stochastic = True
    identity = {"macs": 1.0}
    strongest = {"macs": 0.25}

    def skip(self, model: nn.Module) -> str | None:
        found = groups(model)
        return (
            None
            if found and len(scales(found)) == len(found)
            else "its free channels have no batch norm whose scales could be ranked"
        )

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.macs == 1:
            return model
        gammas, epochs = scales(groups(model)), data.fine_tune.epochs
        train(
            model,
            data,
            replace(data.fine_tune, epochs=self.share * epochs),
            lambda rate: add_subgradient(gammas, self.s),
        )
        prune_to_macs(model, global_order(importance(gammas)), self.macs, data)
        return train(model, data, replace(data.fine_tune, epochs=(1 - self.share) * epochs))
