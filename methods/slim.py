"""Slim: a narrower dense model of the same family at equal MACs, trained from scratch
by the same recipe.

The control of every method that makes a model cheaper: what simply choosing a smaller
model would have given (Liu et al., "Rethinking the value of network pruning", ICLR
2019). The width multiplier is found by bisection to 1/256; which arguments it scales
stands beside the model in params.yaml.

Checked against: the counter (MACs never above the target) and its limiting case (width
1 is dense's architecture).
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
    multiply-accumulates; 1 keeps dense.
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
