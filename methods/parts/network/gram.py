"""What a layer's inputs say about its weights: their second moments, and the norm of
each feature.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from methods.parts.network.layers import Layer, feature_rows, visit_inputs, visit_raw


def moments(
    module: nn.Module,
    layers: Mapping[str, Layer],
    inputs: Tensor,
    importance: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return H = 2/N sum r x x^T (n, n), in float64, over the N input rows x that each
    of `layers` gets when `module` runs on `inputs`.

    importance: r (N,) of the rows of a layer, in their order; 1 where not given.
    Products are float32, one per batch of 128 inputs; their sum is float64.
    """
    totals = {
        name: torch.zeros(
            2 * (layer.weight[0].numel(),), dtype=torch.float64, device=layer.weight.device
        )
        for name, layer in layers.items()
    }
    counts = dict.fromkeys(layers, 0)

    def add(name: str, rows: Tensor) -> None:
        start = counts[name]
        counts[name] += len(rows)
        r = (importance or {}).get(name)
        totals[name] += rows.T @ (rows if r is None else r[start : counts[name], None] * rows)

    visit_inputs(module, layers, inputs, add)
    return {name: total.mul_(2 / counts[name]) for name, total in totals.items()}


def norms(module: nn.Module, layers: Mapping[str, Layer], inputs: Tensor) -> dict[str, Tensor]:
    """Return ||X_j||_2 (n,) of every input feature j of each of `layers` when `module`
    runs on `inputs`.

    Squares are summed over the images of a batch before a convolution's windows are
    taken of them: that is what the windows' squares sum up to.
    """
    squares = {
        name: torch.zeros(layer.weight[0].numel(), dtype=torch.float64, device=layer.weight.device)
        for name, layer in layers.items()
    }

    def add(name: str, x: Tensor) -> None:
        squares[name] += feature_rows(layers[name], x.square().sum(0, keepdim=True).double()).sum(0)

    visit_raw(module, layers, inputs, add)
    return {name: square.sqrt().float() for name, square in squares.items()}
