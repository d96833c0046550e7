"""Wanda: zero, in each output row, the weights whose magnitude times input norm is smallest (sheet B15).

Sun, Liu, Bair, Kolter, "A simple and effective pruning approach for large language models", ICLR 2024. Metric_ij = |W_ij| * ||X_j||_2, the norm of input
feature j over all calibration tokens; the lowest floor(s n) of the n weights of each row are zeroed, uniformly over layers. Block by block, as in the
authors' language-model script: the inputs of a block come from the pruned blocks before it (ASSUMED as default; their vision script uses dense inputs).
Convolutions (ASSUMED, the paper has Linear only): feature j is (channel, ky, kx) of the unfolded input, a row is a filter. Calibration images are the track's,
not augmented (the vision script draws 4,096 augmented ones). Afterwards BatchNorm statistics are re-estimated (`bn_passes`; convention 0.10).

Checked against: the sheet's worked example; constant input norms give per-row magnitude; exactly floor(s n) zeros in every row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods import Data, Method, Needs, Realisation
from methods._layers import Layer, by_block, prunable, visit_inputs
from methods._masks import Passes, Sparsity, lowest, no_norms, recover, zero


def wanda_mask(W: Tensor, norm: Tensor, s: float) -> Tensor:
    """Mark the floor(s n) lowest |W_ij| norm_j of each row of W (rows, n)."""
    metric = W.abs() * norm
    return torch.stack([lowest(row, floor(s * W.shape[1])) for row in metric])


def input_norms(model: nn.Module, layers: dict[str, Layer], images: Tensor) -> dict[str, Tensor]:
    """Return ||X_j||_2 of every input feature j of each layer over `images`."""
    squares = {name: torch.zeros(layer.weight[0].numel(), dtype=torch.float64, device=layer.weight.device) for name, layer in layers.items()}

    def add(name: str, rows: Tensor) -> None:
        squares[name] += rows.double().square().sum(0)

    visit_inputs(model, layers, images, add)
    return {name: square.sqrt().float() for name, square in squares.items()}


@dataclass(frozen=True)
class Wanda(Method):
    """Zero the `sparsity` of each row with the lowest weight times input norm."""

    sparsity: Sparsity = 0.5
    bn_passes: Passes = 1

    family: ClassVar[str] = "pruning"
    paper: ClassVar[str] = "Sun et al., ICLR 2024, arXiv 2306.11695"
    needs: ClassVar[Needs] = "calibration"
    realisation: ClassVar[Realisation] = "masked"
    stochastic: ClassVar[bool] = False
    identity: ClassVar[dict[str, object]] = {"sparsity": 0.0, "bn_passes": 0}
    strongest: ClassVar[dict[str, object]] = {"sparsity": 0.99}

    def skip(self, model: nn.Module) -> str | None:
        return no_norms(model, self.bn_passes)

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        images = data.calibration
        for layers in by_block(model, prunable(model)):
            norms = input_norms(model, layers, images)
            masks = {name: wanda_mask(layer.weight.flatten(1), norms[name], self.sparsity).view_as(layer.weight) for name, layer in layers.items()}
            zero(model, masks)
        return recover(model, data, self.bn_passes)
