"""GPTQ: round a layer column by column and let the columns not yet rounded make up for
each error, as the second moment of the inputs says.

Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers", ICLR 2023, arXiv 2210.17323.

With H = 2/N sum x x^T the second moment of a layer's N inputs x, the rounded weights Q
are to keep

    tr((W - Q) H (W - Q)^T)

small. The columns w_j of W are rounded to q_j one after another, in their own order,
and the later columns w_k, k > j, make up for each error. With U the upper Cholesky
factor of the inverse of H (damped, see `percdamp`),

    e_j = (w_j - q_j) / U_jj,    w_k -= e_j U_jk

`methods.parts.quantization.gptq` does this for one layer, by
`methods.parts.quantization.columns`. Another order of the columns (act-order) is not
offered. Blocks of 128 columns only set the speed.

Grids and ranges are those of RTN, so that the rounding is all that differs. Grids per
channel are fitted once to the original weights, those of groups to the current ones
where the group starts. Weights only; batch norms are folded first.

Arguments:
    bits: width of the codes of all Conv2d and Linear except stem, classifier and
        depth-wise convolutions, which are rounded to nearest in 8 bits; 32 leaves the
        model as it is
    percdamp: damping: what is added to each entry of H's diagonal, as a share of the
        diagonal's mean

Assumed:
    - All calibration images are used.
    - A convolution's inputs are its unfolded windows.
    - Layers are done one at a time in order of execution, each on inputs that come from
      everything before it already quantised (its block is run again for each). In the
      paper's code the layers of a block see the inputs that they had before any of them
      was quantised.
    - Moments are added up and factorised in float64.

Checked against:
    - github.com/IST-DASLab/gptq at 2d65066, `fasterquant` on the same weights, moments
      and grids at 2, 3 and 4 bits, per channel and in groups of 64: every code equal
      for a Linear of 256 inputs, two of them dead (always 0), and a strided convolution
      of 144. Its groups were as long as its blocks: in a longer block it fits later
      groups to weights that lack that block's updates.
    - The same for a Linear of 768 inputs: up to 0.2 % of the codes differ per channel
      and 1.2 % in groups, from ties in the float32 factor of that code; the layer's
      error agrees to 0.2 %.
    - In the tests: the recursion with explicit inverses that GPTQ speeds up.
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
    """Fold the batch norms, then round layer by layer to grids of `bits` bits, with
    damping `percdamp`.
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
