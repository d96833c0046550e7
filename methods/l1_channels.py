"""L1-norm filter pruning: remove the channels whose kernels have the smallest L1 norm,
then fine-tune.

Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017,
arXiv 1608.08710.

The score of channel j is the L1 norm of the kernel that makes it:

    S_j = sum |W[j]|

It is taken on the original kernels (the paper's "independent" scoring). The same share
of channels, those with the smallest S_j, is removed from every group, at once; a group
is the channels, hidden units or heads that one layer makes.

Only free channels go (`methods.parts.pruning.channels`). Channels that a residual
connection couples are left alone, as in the paper, which prunes the first layers of
residual blocks.

Arguments:
    macs: multiply-accumulates (MACs) that may be left, as a share of dense's; 1 keeps
        dense as it is

Assumed:
    - The share of channels that goes is the one that meets the MACs budget.
    - Deviation: no layer is spared. The paper spares sensitive layers, which it chooses
      by hand.
    - Fine-tuning is the track's recipe; the paper takes 20 epochs of SGD at a constant
      rate.
    - A channel of an InvertedResidual is scored by its row of the expansion, a hidden
      unit of an MLP by its row of fc1, and an attention head by its rows of q, k and v.

Checked against:
    - torch-pruning 1.6.1: on kernels as they were, its MagnitudeImportance with p=1
      names the same channels; pruning the same channels and heads gives the same
      parameters, MACs and, in float64, outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.pruning.channels import groups, prune_to_macs, removal_order
from methods.parts.training.train import train


def l1_norm(weights: Tensor) -> Tensor:
    """Return S_j = sum |W[j]| (units,) of `weights` (units, fan-in)."""
    return weights.abs().sum(1)


@dataclass(frozen=True)
class L1Channels(Method):
    """Keep `macs` of the multiply-accumulates by removing the free channels of smallest
    L1 norm, then fine-tune.
    """

    macs: Annotated[float, Field(gt=0, le=1)] = 0.5

    family = "pruning"
    paper = "Li et al. 2017, arXiv 1608.08710"
    needs = "fine-tune"
    stochastic = True
    identity = {"macs": 1.0}
    strongest = {"macs": 0.25}

    def skip(self, model: nn.Module) -> str | None:
        return (
            None
            if groups(model)
            else "no free channels: every layer is coupled to a residual stream or of an unknown "
            "kind"
        )

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        scores = [l1_norm(group.weights()) for group in groups(model)]
        removed = prune_to_macs(model, removal_order(scores), self.macs, data)
        return train(model, data, data.fine_tune) if removed else model
