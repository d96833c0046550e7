"""int8_static: weights and activations in 8 bits on fixed grids, placed so that integer
kernels can run every layer.

Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam, Kalenichenko, "Quantization and Training
of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, arXiv
1712.05877.

This is the paper's arithmetic as post-training quantisation, the way runtimes do it.
Weights are int8, symmetric, per output channel. Activations are uint8, asymmetric, one
grid per tensor, from the range that the calibration images give it.

Two kinds of tensors get a grid. What a Conv2d or Linear reads is rounded where it is
made, so that a residual branch that reads it, too, is in 8 bits as well. What a Conv2d
writes is rounded after the activation that follows it, if one does, so that integer
convolutions hand integers on.

Residual streams that layers read through a LayerNorm alone stay float32, as do norms,
softmax, attention's two products and pooling. Batch norms are folded first.

Arguments:
    bits: width of weights and activations; 32 leaves the model as it is
    percentile: p; the range of a tensor leaves out the (100 - p) % of its values at
        either end, measured on at most 2^16 evenly spaced values of each batch; 100 is
        min-max

Assumed:
    - All layers are rounded, stem and classifier included, as integer kernels are what
      the grids are for.
    - Scales are rounded to float16, as everywhere in the weights file. Its integer
      weights are -127..127.
    - Biases stay float32 here. Runtimes round them to int32, with the product of both
      scales (of input and weight) as step.

Checked against:
    - onnxruntime.quantization.quantize_static 1.31 (QDQ, per channel, min-max, 256
      images) on the ResNet and the ViT of digits, trained for five epochs. The same 23
      and 26 layers are rounded. Scales of what they read agree to 4e-4 (ours are
      float16), zero points to one step; scales of weights, compared on the ViT, to
      5e-4.
    - The same models run in ONNX Runtime: on the ResNet and the ViT the logits of ours
      are 2.9 and 1.8 % from fp32's, those of theirs 4.1 and 3.8 %.
    - In the tests: the same comparison of what the layers of an untrained ResNet read.
    - In the tests: a residual block by hand.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method, store_as_codes
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import Layer, weighted
from methods.parts.quantization.activations import Static, observe, quantise_input
from methods.parts.quantization.quantize import KEEP, Grid, asymmetric, round_to_nearest, rule

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish)
SAMPLE = 2**16  # values of a batch of which a percentile is taken


@dataclass(frozen=True)
class Places:
    """The modules whose output gets a grid, and the layers whose input does because no
    module makes it, by name.
    """

    outputs: Mapping[str, nn.Module]
    inputs: Mapping[str, Layer]


@torch.no_grad()
def places(model: nn.Module, probe: Tensor) -> Places:
    """Run `probe` through `model` and see which module makes what the layers read, and
    which activation takes what a convolution writes.
    """
    made: dict[tuple[int, int], str] = {}  # by tensor and its version, as activations work in place
    readers: dict[tuple[int, int], list[str]] = {}
    alive: list[Tensor] = []  # a freed tensor would pass its id on
    names = {module: name for name, module in model.named_modules() if name}

    def reads(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            readers.setdefault((id(args[0]), args[0]._version), []).append(names[module])
            alive.append(args[0])

    def makes(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            made.setdefault((id(output), output._version), names[module])
            alive.append(output)

    handles = [
        handle
        for module in names
        for handle in (module.register_forward_pre_hook(reads), module.register_forward_hook(makes))
    ]
    try:
        model(probe)
    finally:
        for handle in handles:
            handle.remove()
    modules, layers = dict(model.named_modules()), weighted(model)
    outputs, inputs = set[str](), set[str]()
    for tensor, found in readers.items():
        for name in (name for name in found if name in layers):
            (outputs if tensor in made else inputs).add(made.get(tensor, name))
    for tensor, name in made.items():
        if isinstance(layers.get(name), nn.Conv2d):
            following = [
                reader
                for reader in readers.get(tensor, [])
                if isinstance(modules[reader], ACTIVATIONS)
            ]
            outputs.add(following[0] if following else name)
    return Places(
        {name: modules[name] for name in sorted(outputs)},
        {name: layers[name] for name in sorted(inputs)},
    )


def quantise_output(module: nn.Module, quantiser: nn.Module) -> None:
    """Let `module` put its output through `quantiser`; see
    `methods.parts.quantization.activations.quantise_input`.
    """
    own = type(module)

    def forward(self: Any, *args: Any) -> Tensor:
        rounded: Tensor = self.output_quantiser(own.forward(self, *args))
        return rounded

    module.__class__ = type(f"OutputQuantised{own.__name__}", (own,), {"forward": forward})
    module.output_quantiser = quantiser


def ends(x: Tensor, percentile: float) -> Tensor:
    """Return the ends (2,) of the range of `x` without the 100 - percentile % of its
    values at either side.
    """
    if percentile == 100:
        return torch.stack(x.aminmax())
    sample = x.flatten()[:: -(-x.numel() // SAMPLE)]
    return sample.quantile(torch.tensor([1 - percentile / 100, percentile / 100], device=x.device))


@torch.no_grad()
def grids(
    model: nn.Module, where: Places, images: Tensor, percentile: float
) -> tuple[dict[str, Grid], dict[str, Grid]]:
    """Return the grids of outputs and of inputs, over the least lower and the greatest
    upper end (and 0) that batches of 128 of `images` give.
    """
    seen: dict[tuple[str, str], list[Tensor]] = {}

    def see(kind: str, name: str, x: Tensor) -> None:
        seen.setdefault((kind, name), []).append(ends(x, percentile))

    def hook(name: str) -> Callable[..., None]:
        return lambda _module, _args, y: see("output", name, y)

    handles = [module.register_forward_hook(hook(name)) for name, module in where.outputs.items()]
    observe(model, where.inputs, images, lambda name, x: see("input", name, x))
    for handle in handles:
        handle.remove()

    def grid(kind: str, name: str) -> Grid:
        lows, highs = torch.stack(seen[kind, name]).unbind(1)
        return asymmetric(
            lows.min().clamp(max=0).view(1, 1), highs.max().clamp(min=0).view(1, 1), 8
        )

    return {name: grid("output", name) for name in where.outputs}, {
        name: grid("input", name) for name in where.inputs
    }


@dataclass(frozen=True)
class Int8Static(Method):
    """Round all layers to int8 and what they read to uint8, on grids over `percentile`
    of what the calibration images give.
    """

    bits: Literal[8, 32] = 8
    percentile: Annotated[float, Field(gt=50, le=100)] = 100.0

    family = "quantization"
    paper = "Jacob et al. 2018, arXiv 1712.05877"
    needs = "calibration"
    realisation = "kernel"
    identity = {"bits": KEEP}
    strongest = {"percentile": 90.0}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Fold the batch norms, observe ranges, then round weights and activations."""
        if self.bits == KEEP:
            return model
        images = data.calibration
        fold_batchnorms(model, images[:1])
        where = places(model, images[:1])
        outputs, inputs = grids(model, where, images, self.percentile)
        for layer in weighted(model).values():
            store_as_codes(
                layer,
                round_to_nearest(layer.weight.flatten(1), rule(self.bits, layer.weight[0].numel())),
            )
        for name, grid in inputs.items():
            quantise_input(where.inputs[name], Static(grid))
        for name, grid in outputs.items():
            quantise_output(where.outputs[name], Static(grid))
        return model
