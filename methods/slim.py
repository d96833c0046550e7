"""Slim: a narrower dense model of the same family at equal MACs, trained from scratch
by the same recipe.

A control of this benchmark, without a paper of its own; see Liu et al., "Rethinking the
value of network pruning", ICLR 2019, arXiv 1810.05270.

This is the control of every method that makes a model cheaper: what simply choosing a
smaller model would have given.

All widths of the architecture are multiplied by one number; which arguments of a model
it scales stands beside the model in params.yaml. Bisection to 1/256 finds the widest
model whose multiply-accumulates (MACs) meet the budget, or the narrowest there is if
none does. It is new: the weights of dense play no part.

Arguments:
    macs: the MACs that the model may have, as a share of dense's; 1 keeps dense

Checked against:
    - The counter: MACs are never above the target.
    - Its limiting case: width 1 is dense's architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from methods import Data, Method
from methods.parts.training.slim import widest
from methods.parts.training.train import train


@dataclass(frozen=True)
class Slim(Method):
    """Train the widest model of the family that needs at most `macs` of dense's
    multiply-accumulates.
    """

    macs: Annotated[float, Field(gt=0, le=1)] = 0.5

    family = "reference"
    paper = "control, see Liu et al. 2019, arXiv 1810.05270"
    needs = "scratch"
    stochastic = True
    identity = {"macs": 1.0}
    strongest = {"macs": 0.1}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.macs == 1:
            return model
        return train(widest(data, self.macs * data.macs(model)), data, data.scratch)
