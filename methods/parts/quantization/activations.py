"""Quantising activations: what layers get as inputs, and rounding it there to one fixed
grid; shared by methods that quantise weights and activations.

Everything is written in elementary operators, q = clamp(round(x / s) + z, 0, top) and
(q - z) s, so that it exports, is counted, and can be rewritten as QuantizeLinear and
DequantizeLinear. What it computes is what integer kernels would; the artefact's
arithmetic stays float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from methods.parts.network.layers import Layer
from methods.parts.quantization.quantize import Grid, asymmetric


class Static(nn.Module):
    """Round any x to a fixed grid: q = clamp(round(x / scale) + zero, 0, top), x^ = (q
    - zero) scale; `scale` and `zero` are scalar buffers.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.register_buffer("scale", grid.scale.detach().reshape(()).clone())
        self.register_buffer("zero", grid.zero.detach().reshape(()).clone())
        self.top = grid.top

    def forward(self, x: Tensor) -> Tensor:
        """Return the nearest points of the grid, in the shape of `x`."""
        q = ((x / self.scale).round() + self.zero).clamp(0, self.top)
        return (q - self.zero) * self.scale


def quantise_input(layer: Layer, quantiser: nn.Module) -> None:
    """Let `layer` put its input through `quantiser` first: its class becomes one
    derived from its own, as torch.nn.utils.parametrize does it.
    """
    own = type(layer)

    def forward(self: Layer, x: Tensor) -> Tensor:
        return own.forward(self, self.input_quantiser(x))  # type: ignore[arg-type, operator]

    layer.__class__ = type(f"InputQuantised{own.__name__}", (own,), {"forward": forward})
    layer.input_quantiser = quantiser


@torch.no_grad()
def observe(
    model: nn.Module,
    layers: Mapping[str, Layer],
    images: Tensor,
    see: Callable[[str, Tensor], None],
) -> None:
    """Run `images` through `model` in batches of 128 and call `see(name, x)` with the
    input x, as it comes, of each of `layers`.
    """

    def hook(name: str) -> Callable[..., None]:
        return lambda _module, args: see(name, args[0])

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        for batch in images.split(128):
            model(batch)
    finally:
        for handle in handles:
            handle.remove()


def minmax_grids(
    model: nn.Module, layers: Mapping[str, Layer], images: Tensor, bits: int
) -> dict[str, Grid]:
    """Return for each of `layers` the asymmetric grid of 2^bits points from the least
    to the greatest input (and 0) it gets from `images`.
    """
    lows: dict[str, list[Tensor]] = {name: [] for name in layers}
    highs: dict[str, list[Tensor]] = {name: [] for name in layers}

    def see(name: str, x: Tensor) -> None:
        lows[name].append(x.min())
        highs[name].append(x.max())

    observe(model, layers, images, see)
    return {
        name: asymmetric(
            torch.stack(lows[name]).min().clamp(max=0).view(1, 1),
            torch.stack(highs[name]).max().clamp(min=0).view(1, 1),
            bits,
        )
        for name in layers
    }
