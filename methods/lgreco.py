"""L-GreCo: choose each layer's bits by a dynamic program over a table of errors and
sizes, for the least total error within a budget.

Alimohammadi, Markov, Frantar, Alistarh, "L-GreCo: Layerwise-Adaptive Gradient
Compression for Efficient and Accurate Deep Learning", MLSys 2024, arXiv 2210.17357.

The paper chooses how strongly each layer's *gradients* are compressed in distributed
training. Option v of layer l makes the error e(l, v), in whole buckets, and takes
size(l, v). D[l, j] is the least size that the first l layers can have within a total
error of j:

    D[l, j] = min over options v of D[l-1, j - e(l, v)] + size(l, v)

The paper's answer is the least size whose total error is that of a uniform choice.

Here the same program allots the bits of *weights*, with the roles of error and size
swapped: it finds the least total error among the choices whose size is within
`average_bits` a weight. Float16 scales and uint8 zero points count as size, and the
average is never exceeded. A model that needs more even with all layers at 2 bits is
skipped.

Arguments:
    average_bits: stored bits a weight, scales and zero points included, that the layers
        may have on average; well above 8, all get 8 bits; 32 keeps the model
    error: how the error of a rounded weight Q is measured: "weight" by |W - Q|^2;
        "output" by tr((W - Q) H (W - Q)^T), where H = 2/N sum x x^T over the N input
        rows x of the layer in the model not yet rounded; "slope" by the output error
        times KL(dense || model) / error, which is how much such an error moves the
        logits, both taken with this layer alone at 3 bits, the KL on 256 images

Assumed:
    - As the paper is about gradients, the options are this benchmark's: 2, 3, 4, 6 and
      8 bits by round-to-nearest, with the grids of
      `methods.parts.quantization.quantize`.
    - The table holds squared errors, measured in any of the three ways of `error`,
      because squared errors add up; the paper's are not squared.
    - Batch norms are folded into the convolutions first.
    - Stem, classifier and depth-wise convolutions get 8 bits and are not in the
      average.
    - Sizes are counted in their greatest common divisor, which makes the table exact.
      Where that is too fine, they are rounded up to 100,000 buckets.

Checked against:
    - github.com/LGrCo/L-GreCo at 13942f0, the dynamic program of its hook
      (lgreco_hook.py, cut out), run on the same tables of 3 to 15 layers and 3 to 8
      options with its own roles of error and size: the same choice in 60 of 60.
    - github.com/IST-DASLab/EvoPress at 50888a0, dp_search.py, whose roles are the ones
      here, on the same tables of 2 to 19 layers: the same choice in 100 of 100.
    - In the tests: a worked example, and random tables on which it is as good as trying
      all choices.
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
