"""GPTQ: round a layer column by column and let the columns not yet rounded make up for
each error, as the second moment of the inputs says.

Frantar, Ashkboos, Hoefler, Alistarh, GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers, ICLR 2023, arXiv 2210.17323. `bits` is the width of
the codes of all Conv2d and Linear except stem, classifier and depth-wise convolutions,
which are rounded to nearest in 8 bits. Weights only; batch norms are folded first.
Grids and ranges are those of RTN, so that the rounding is all that differs: per-channel
grids are fitted once to the original weights, those of groups to the current ones where
the group starts. The columns of a layer are `_gptq` and `_columns`. Defaults: damping
of 1 % of the mean diagonal, columns in their own order (act-order is not offered);
blocks of 128 columns only set the speed.

ASSUMED: all calibration images are used; a convolution's inputs are its unfolded
windows; layers are done one at a time in order of execution, each on inputs that come
from everything before it already quantised (its block is run again for each), where the
paper's code lets the layers of a block see the inputs they had before any of them was
quantised; moments are added up and factorised in float64; 32 bits mean that the model
stays as it is.

Checked against: github.com/IST-DASLab/gptq at 2d65066, `fasterquant` on the same
weights, moments and grids at 2, 3 and 4 bits, per channel and in groups of 64: a Linear
of 256 inputs, two of them dead, and a strided convolution of 144: every code equal (its
groups as long as its blocks: in a longer block it fits later groups to weights that
lack that block's updates); a Linear of 768 inputs: up to 0.2 % of the codes differ per
channel and 1.2 % in groups, from ties in its float32 factor, with the layer's error
equal to 0.2 %. In the tests: the recursion with explicit inverses that GPTQ speeds up.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from methods import Data, Method, store_as_codes
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.gram import moments
from methods.parts.network.layers import prunable, weighted
from methods.parts.network.walk import stages
from methods.parts.quantization.gptq import gptq
from methods.parts.quantization.quantize import KEEP, round_to_nearest, rules


@dataclass(frozen=True)
class GPTQ(Method):
    """Round to grids of 2^`bits` points, with damping `percdamp` of the mean
    diagonal.
    """

    bits: Literal[2, 3, 4, 5, 6, 7, 8, 32] = 4
    percdamp: Annotated[float, Field(gt=0, le=1)] = 0.01

    family = "quantization"
    paper = "Frantar et al. 2023, arXiv 2210.17323"
    needs = "calibration"
    realisation = "packed"
    identity = {"bits": KEEP}
    strongest = {"bits": 2}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Fold the batch norms, round stem, classifier and depth-wise layers, then do
        the others one after another.
        """
        if self.bits == KEEP:
            return model
        images = data.calibration
        fold_batchnorms(model, images[:1])
        layers, inner, how = weighted(model), prunable(model), rules(model, self.bits)
        for name in layers.keys() - inner.keys():
            store_as_codes(
                layers[name], round_to_nearest(layers[name].weight.flatten(1), how[name])
            )
        for stage in stages(model, inner, images):
            for name, layer in stage.layers.items():
                H = moments(stage.module, {name: layer}, stage.inputs)[name]
                store_as_codes(layer, gptq(layer.weight.flatten(1), H, how[name], self.percdamp))
        return model
