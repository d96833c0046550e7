"""RTN, round to nearest: every weight goes to the nearest point of its channel's grid;
the floor that any weight quantiser must beat.

Folklore; grids and their ranges as in Krishnamoorthi, "Quantizing deep convolutional
networks for efficient inference", 2018, arXiv 1806.08342, and Nagel et al., "A white
paper on neural network quantization", 2021, arXiv 2106.08295.

A grid is the points scale * (code - zero) for code = 0, ..., top. Every weight w gets
the code of the point nearest to it:

    code = clip(round(w / scale) + zero, 0, top)

8 bits take a symmetric min-max grid per output channel, which reaches to the channel's
largest |w|. Fewer bits take an asymmetric grid per output channel, whose range is
searched for the least mean |w - w^|^2.4 with w^ the rounded weight; 2 bits take such a
grid per group of 64 weights of a channel.

Weights only: biases, norms, tokens and activations stay float32. Batch norms are folded
first.

Arguments:
    bits: width of the codes of all Conv2d and Linear except stem, classifier and
        depth-wise convolutions, which get 8 bits; 32 leaves the model as it is

Assumed:
    - 5 to 7 bits take the same kind of grid as 4 bits.
    - Scales are stored in float16.

Checked against:
    - torch.fake_quantize_per_channel_affine (torch 2.13) on the same scales and zero
      points: equal to 1e-6.
    - github.com/IST-DASLab/gptq at 2d65066, its Quantizer (per channel, asymmetric,
      range search on, 2 to 4 bits): scales and zero points identical before ours are
      rounded to float16, which moves the chosen range of 1 to 2 % of the channels.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from methods import Data, Method, store_as_codes
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import weighted
from methods.parts.quantization.quantize import KEEP, round_to_nearest, rules


@dataclass(frozen=True)
class RTN(Method):
    """Fold the batch norms, then round every weight to the nearest point of its grid of
    `bits` bits.
    """

    bits: Literal[2, 3, 4, 5, 6, 7, 8, 32] = 8

    family = "quantization"
    paper = "Nagel et al. 2021, arXiv 2106.08295"
    needs = "data-free"
    realisation = "packed"
    identity = {"bits": KEEP}
    strongest = {"bits": 2}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Fold the batch norms, then round layer by layer."""
        if self.bits == KEEP:
            return model
        fold_batchnorms(model, next(model.parameters()).new_zeros(1, *data.image_shape))
        layers = weighted(model)
        for name, how in rules(model, self.bits).items():
            store_as_codes(layers[name], round_to_nearest(layers[name].weight.flatten(1), how))
        return model
