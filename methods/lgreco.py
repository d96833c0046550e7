"""L-GreCo: choose each layer's bits by a dynamic program over a table of errors and
sizes, for the least total error within a budget.

Alimohammadi, Markov, Frantar, Alistarh, L-GreCo: Layerwise-Adaptive Gradient
Compression for Efficient and Accurate Deep Learning, MLSys 2024, arXiv 2210.17357. The
paper chooses how each layer's *gradients* are compressed in distributed training: D[l,
j] = min over options v of D[l-1, j - e(l, v)] + size(l, v) with errors in whole
buckets, the least size whose total error is that of a uniform choice. Here it allots
the bits of *weights*, roles swapped: the least total error whose size is `average_bits`
a weight, float16 scales and uint8 zero points included; never above.

ASSUMED: as the paper is about gradients, options are 2, 3, 4, 6 and 8 bits by
round-to-nearest (grids of `methods.parts.quantization.quantize`), batch norms folded
first; stem, classifier and depth-wise convolutions get 8 bits and are not in the
average. The table holds squared errors, which add up (the paper's are not squared):
"weight" is |W - Q|^2; "output" tr((W - Q) H (W - Q)^T), H = 2/N sum x x^T of the
layer's inputs in the model not yet rounded; "slope" that times how much it moves the
logits, KL(dense || model) / error with this layer alone at 3 bits on 256 images. Sizes
are counted in their greatest common divisor, which makes the table exact, or rounded up
to 100,000 buckets where that is too fine. 32 bits keep the model.

Checked against: github.com/LGrCo/L-GreCo at 13942f0, the dynamic program of its hook
(lgreco_hook.py, cut out and run on the same tables of 3 to 15 layers and 3 to 8
options, roles as there): the same choice in 60 of 60; with roles as here, dp_search.py
of github.com/IST-DASLab/EvoPress at 50888a0, on the same tables of 2 to 19 layers: the
same choice in 100 of 100; a worked example; trying all choices of random tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from methods import Codes, Data, Method, store_as_codes
from methods.parts.allocation.allocate import choose
from methods.parts.network.gram import moments
from methods.parts.network.layers import Layer, prunable
from methods.parts.quantization.levels import BITS, budget, costs, logits, out_of_reach, rounded
from methods.parts.quantization.quantize import KEEP
from methods.parts.training.losses import soft_loss

PROBE, IMAGES = BITS.index(3), 256
Errors = list[list[float]]


def by_weight(
    model: nn.Module, options: Mapping[str, list[Codes]], images: Tensor, dense: Tensor
) -> Errors:
    """Return |W - Q|^2 of each layer at each level."""
    layers = prunable(model)
    return [
        [float(difference(layers[name], codes).square().sum()) for codes in found]
        for name, found in options.items()
    ]


def by_output(
    model: nn.Module, options: Mapping[str, list[Codes]], images: Tensor, dense: Tensor
) -> Errors:
    """Return tr((W - Q) H (W - Q)^T) of each layer at each level."""
    layers, H = prunable(model), moments(model, prunable(model), images)
    deltas = {
        name: [difference(layers[name], codes) for codes in found]
        for name, found in options.items()
    }
    return [
        [float((delta @ H[name] * delta).sum()) for delta in found]
        for name, found in deltas.items()
    ]


def by_slope(
    model: nn.Module, options: Mapping[str, list[Codes]], images: Tensor, dense: Tensor
) -> Errors:
    """Return the output errors times the layer's KL / error with it alone at 3 bits."""
    errors, slopes = by_output(model, options, images, dense), []
    for (name, found), error in zip(options.items(), errors, strict=True):
        layer = prunable(model)[name]
        original = layer.weight.data
        layer.weight.data = found[PROBE].decode(original.shape)
        slopes.append(
            float(soft_loss(logits(model, images[:IMAGES]), dense[:IMAGES], 1.0))
            / max(error[PROBE], 1e-30)
        )
        layer.weight.data = original
    return [[slope * value for value in error] for slope, error in zip(slopes, errors, strict=True)]


def difference(layer: Layer, codes: Codes) -> Tensor:
    """Return W - Q (rows, columns) in float64."""
    W = layer.weight.detach()
    return (W.double() - codes.decode(W.shape).double()).flatten(1)


TABLES: Mapping[str, Callable[[nn.Module, Mapping[str, list[Codes]], Tensor, Tensor], Errors]] = {
    "weight": by_weight,
    "output": by_output,
    "slope": by_slope,
}


@dataclass(frozen=True)
class LGreCo(Method):
    """Choose the bits of each layer for the least total `error` within `average_bits`
    stored bits a weight.
    """

    average_bits: Annotated[float, Field(ge=2, le=32)] = 4.0
    error: Literal["weight", "output", "slope"] = "slope"

    family = "allocation"
    paper = "Alimohammadi et al. 2024, arXiv 2210.17357"
    needs = "calibration"
    realisation = "packed"
    identity = {"average_bits": KEEP}
    strongest = {"average_bits": 3.0, "error": "weight"}

    def skip(self, model: nn.Module) -> str | None:
        return out_of_reach(model, self.average_bits)

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Fold the batch norms, round each layer at each level, fill the tables of
        errors and sizes, and take the best options.
        """
        if self.average_bits == KEEP:
            return model
        images = data.calibration
        dense = logits(model, images)
        options = rounded(model, images[:1])
        errors = TABLES[self.error](model, options, images, dense)
        chosen = choose(costs(model), errors, budget(model, self.average_bits))
        for (name, found), v in zip(options.items(), chosen, strict=True):
            store_as_codes(prunable(model)[name], found[v])
        return model
