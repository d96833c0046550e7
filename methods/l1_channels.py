"""L1-norm filter pruning: remove the channels whose kernels have the smallest L1 norm,
then fine-tune.

Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017,
arXiv 1608.08710. S_j = sum |W[j]| is taken on the original kernels ("independent"
scoring), one share is removed from every group, at once. Only free channels go
(`methods.parts.pruning.channels`): channels that a residual connection couples are left
alone, as in the paper, which prunes the first layers of residual blocks. It also spares
sensitive layers, chosen by hand; we do not.

ASSUMED: the share is what meets the MACs budget; fine-tuning is the track's recipe
instead of the paper's 20 epochs of SGD at a constant rate; InvertedResidual is scored
by its expansion rows, a hidden unit of an MLP by its fc1 row, an attention head by its
q, k and v rows.

Checked against: torch-pruning 1.6.1 (on kernels as they were, MagnitudeImportance with
p=1 names the same channels; pruning the same channels and heads gives the same
parameters, MACs and, in float64, outputs).
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
