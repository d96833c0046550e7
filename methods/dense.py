"""Dense: the trained, uncompressed model, which every ratio refers to.

Checked against: itself; the contract test demands that its artefact equals the dense
model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from methods import Data, Method, Needs, Realisation


@dataclass(frozen=True)
class Dense(Method):
    """Return the model as it is."""

    family: ClassVar[str] = "reference"
    paper: ClassVar[str] = "-"
    needs: ClassVar[Needs] = "data-free"
    realisation: ClassVar[Realisation] = "structural"
    stochastic: ClassVar[bool] = False
    identity: ClassVar[dict[str, object]] = {}
    strongest: ClassVar[dict[str, object]] = {}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        return model
