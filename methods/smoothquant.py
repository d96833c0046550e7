"""SmoothQuant: before weights and activations are rounded, move the spread between
channels of an activation into the weights that read it.

Xiao, Lin, Seznec, Wu, Demouth, Han, "SmoothQuant: Accurate and Efficient Post-Training
Quantization for Large Language Models", ICML 2023, arXiv 2211.10438.

For input channel j of a layer that reads a LayerNorm, a_j = max |x_j| over the
calibration images, w_j = max |W_:j|, and

    s_j = a_j^alpha / w_j^(1 - alpha).

The norm's output is divided by s (in its gamma and beta), and the weight's columns are
multiplied by it. Before rounding, this changes nothing.

The pairs that are smoothed are norm1 -> qkv and norm2 -> fc1 of ViT blocks; norm2 ->
channel fc1 of Mixer blocks (norm1 feeds the token MLP transposed); and convolution ->
ReLU -> convolution inside residual blocks, not across ReLU6. A model without pairs is
skipped, unless `alpha` is null.

Then the weights are rounded by RTN's rules, and the input of every Conv2d and Linear is
rounded to `activation_bits` bits. Attention's two products, softmax and norms stay
float32; batch norms are folded first.

Arguments:
    bits: width of the weights' codes of all Conv2d and Linear except stem, classifier
        and depth-wise convolutions, which get 8; 32 leaves the model as it is
    activation_bits: width of the rounded input of every Conv2d and Linear
    activations: "static", one grid per tensor from its range on the calibration images
        (the paper's O3), or "dynamic", a symmetric grid per row of a Linear's input
        from that row's maximum (O1)
    alpha: strength of smoothing: at 0 the largest weight of every channel becomes 1, at
        1 the largest activation does; null does not smooth at all, which at 8 bits is
        plain W8A8, a control

Assumed:
    - Static grids go from minimum to maximum and are asymmetric, so that outputs of
      ReLU lose no bit. The paper's are symmetric.
    - A convolution's dynamic grid is per image.
    - Weights have a scale per output channel with static grids, too. O3 has one scale
      per tensor.
    - A channel that is always 0 keeps s = 1.
    - V's rows, in attention, are not smoothed against the output projection.
    - Ranges are taken on the smoothed model before anything is rounded.

Checked against:
    - github.com/mit-han-lab/smoothquant at c61476d, `smooth_ln_fcs` (alpha 0, 0.3, 0.5,
      0.85, 1; LayerNorm of 48 channels, one of them with zero weights) and
      `quantize_activation_per_token_absmax` on the same tensors: equal bit for bit.
    - The weights of the same code: within one step of ours, whose scales are rounded to
      float16.
    - In the tests: a worked example, and each model before and after smoothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from timm.models.mlp_mixer import MixerBlock
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from methods import Data, Method, store_as_codes
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import Layer, blocks, depthwise, weighted
from methods.parts.quantization.activations import Static, minmax_grids, observe, quantise_input
from methods.parts.quantization.quantize import KEEP, round_to_nearest, rules

TINY = 1e-5  # the least maximum of a weight's column, and the least s and step


def pairs(model: nn.Module) -> dict[str, nn.Module]:
    """Return, by name of a layer, the norm or convolution whose output it alone reads,
    directly or through ReLU.
    """
    found: dict[str, nn.Module] = {}
    for name, block in blocks(model).items():
        if isinstance(block, Block):
            found |= {f"{name}.attn.qkv": block.norm1, f"{name}.mlp.fc1": block.norm2}
        elif isinstance(block, MixerBlock):
            found[f"{name}.mlp_channels.fc1"] = block.norm2
        elif isinstance(block, (BasicBlock, Bottleneck)):
            for first in (1, 2) if isinstance(block, Bottleneck) else (1,):
                reader = block.get_submodule(f"conv{first + 1}")
                if (
                    isinstance(block.get_submodule(f"act{first}"), nn.ReLU)
                    and isinstance(reader, nn.Conv2d)
                    and not depthwise(reader)
                ):
                    found[f"{name}.conv{first + 1}"] = block.get_submodule(f"conv{first}")
    return found


def factors(a: Tensor, w: Tensor, alpha: float) -> Tensor:
    """Return s_j = a_j^alpha / w_j^(1 - alpha); 1 where a_j = 0. a, w (channels,): the
    greatest |activation| and |weight| of channel j.
    """
    s = a.pow(alpha) / w.clamp(min=TINY).pow(1 - alpha)
    return torch.where(a > 0, s.clamp(min=TINY), 1.0)


@torch.no_grad()
def smooth(writer: nn.Module, reader: Layer, a: Tensor, alpha: float) -> None:
    """Divide channel j of what `writer` puts out by s_j and multiply the weights with
    which `reader` takes it in by s_j.
    """
    s = factors(a, reader.weight.transpose(0, 1).flatten(1).abs().amax(1), alpha)
    for tensor in writer.parameters():  # weight (channels, ...) and bias (channels,)
        tensor.div_(s.view(-1, *[1] * (tensor.ndim - 1)))
    reader.weight.mul_(s.view(1, -1, *[1] * (reader.weight.ndim - 2)))


def channel_maxima(
    model: nn.Module, layers: Mapping[str, Layer], images: Tensor
) -> dict[str, Tensor]:
    """Return max |x_j| over `images` for every input channel j of each of `layers`."""
    maxima: dict[str, Tensor] = {}

    def see(name: str, x: Tensor) -> None:
        channel = 1 if isinstance(layers[name], nn.Conv2d) else -1
        found = x.abs().transpose(0, channel).flatten(1).amax(1)
        maxima[name] = torch.maximum(maxima.get(name, found), found)

    observe(model, layers, images, see)
    return maxima


class PerToken(nn.Module):
    """Round x to symmetric grids whose step is the maximum of |x| over `dims`, divided
    by `top`.
    """

    def __init__(self, dims: tuple[int, ...], top: int) -> None:
        super().__init__()
        self.dims, self.top = dims, top

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest points, in the shape of `x`."""
        scale = x.abs().amax(self.dims, keepdim=True).clamp(min=TINY) / self.top
        q: Tensor = (x / scale).round().clamp(-self.top, self.top)
        return q * scale


@dataclass(frozen=True)
class SmoothQuant(Method):
    """Smooth with strength `alpha` (null: not at all), then round weights to `bits` and
    activations to `activation_bits`.
    """

    bits: Literal[4, 8, 32] = 8
    activation_bits: Literal[2, 3, 4, 5, 6, 7, 8] = 8
    activations: Literal["static", "dynamic"] = "static"
    alpha: Annotated[float, Field(ge=0, le=1)] | None = 0.5

    family = "quantization"
    paper = "Xiao et al. 2023, arXiv 2211.10438"
    needs = "calibration"
    realisation = "packed"
    identity = {"bits": KEEP}
    strongest = {"bits": 4, "activation_bits": 2}

    def skip(self, model: nn.Module) -> str | None:
        """Say that there is nothing to smooth, if so."""
        if self.alpha is None or pairs(model):
            return None
        return (
            "no LayerNorm -> Linear or convolution -> ReLU -> convolution to smooth; alpha: null "
            "rounds it without"
        )

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Fold the batch norms, smooth, then round every layer and its input."""
        if self.bits == KEEP:
            return model
        images = data.calibration
        fold_batchnorms(model, images[:1])
        layers, how = weighted(model), rules(model, self.bits)
        if self.alpha is not None:
            writers = pairs(model)
            for name, a in channel_maxima(
                model, {name: layers[name] for name in writers}, images
            ).items():
                smooth(writers[name], layers[name], a, self.alpha)
        quantisers = {"static": self._static, "dynamic": self._dynamic}[self.activations](
            model, layers, images
        )
        for name, layer in layers.items():
            store_as_codes(layer, round_to_nearest(layer.weight.flatten(1), how[name]))
            quantise_input(layer, quantisers[name])
        return model

    def _static(
        self, model: nn.Module, layers: Mapping[str, Layer], images: Tensor
    ) -> Mapping[str, nn.Module]:
        return {
            name: Static(grid)
            for name, grid in minmax_grids(model, layers, images, self.activation_bits).items()
        }

    def _dynamic(
        self, _model: nn.Module, layers: Mapping[str, Layer], _images: Tensor
    ) -> Mapping[str, nn.Module]:
        top = 2 ** (self.activation_bits - 1) - 1
        return {
            name: PerToken((1, 2, 3) if isinstance(layer, nn.Conv2d) else (-1,), top)
            for name, layer in layers.items()
        }
