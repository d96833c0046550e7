"""Dense: the trained, uncompressed model, which every ratio refers to.

A control of this benchmark, without a paper.

The trained model is returned as it is; no data are drawn.

Checked against:
    - Itself: the contract test demands that its artefact equals the dense model.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from methods import Data, Method


@dataclass(frozen=True)
class Dense(Method):
    """Return the model as it is."""

    family = "reference"
    paper = "-"
    needs = "data-free"
    identity = {}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        return model
