"""Fine-tune only: dense with the fine-tuning budget of the track and nothing else.

A control of this benchmark, without a paper of its own; see Blalock et al., "What is
the state of neural network pruning?", MLSys 2020, arXiv 2003.03033, on baselines that
train longer.

Every method that fine-tunes trains longer than dense did. This is its control: it says
what the extra training alone is worth. The dense model is trained further by the
track's fine-tuning recipe, whose warm-up and decay span the epochs that are run.

Arguments:
    share: the share of the track's fine-tuning epochs; 0 leaves the model as it is, 1
        takes them all

Checked against:
    - Its limiting case: no epochs equals dense.
    - The counted gradient steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field
from torch import nn

from methods import Data, Method
from methods.parts.training.train import train


@dataclass(frozen=True)
class FinetuneOnly(Method):
    """Train on for `share` of the track's fine-tuning epochs."""

    share: Annotated[float, Field(ge=0, le=1)] = 1.0

    family = "reference"
    paper = "control, see Blalock et al. 2020, arXiv 2003.03033"
    needs = "fine-tune"
    stochastic = True
    identity = {"share": 0.0}
    strongest = {"share": 1.0}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        return train(
            model, data, replace(data.fine_tune, epochs=self.share * data.fine_tune.epochs)
        )
