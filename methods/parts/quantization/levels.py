"""Every prunable layer rounded to nearest at several widths, and what each costs: the
database out of which allocators choose one level a layer.

Level v means BITS[v]; layers stand in the order of
`methods.parts.network.layers.prunable`. Stem, classifier and depth-wise convolutions
are no part of it: they get 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import torch
from torch import Tensor, nn

from methods import Codes, store_as_codes
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import prunable, weighted
from methods.parts.quantization.quantize import OTHERS, round_to_nearest, rule

BITS = (2, 3, 4, 6, 8)
BATCH = 128


def stored(rows: int, columns: int, bits: int) -> int:
    """Return the bits of a weight (rows, columns) rounded by `rule`: codes, and a
    float16 scale and a uint8 zero point per row and group of columns.
    """
    return rows * (bits * columns + (16 + 8) * -(-columns // rule(bits, columns).group))


def costs(model: nn.Module) -> list[list[int]]:
    """Return the stored bits of each prunable layer at each level, cheapest first."""
    weights = [layer.weight for layer in prunable(model).values()]
    return [[stored(len(weight), weight[0].numel(), bits) for bits in BITS] for weight in weights]


def budget(model: nn.Module, average_bits: float) -> int:
    """Return how many bits all prunable layers may take together."""
    return floor(average_bits * sum(layer.weight.numel() for layer in prunable(model).values()))


def out_of_reach(model: nn.Module, average_bits: float) -> str | None:
    """Say that even the lowest level of all layers takes more than `average_bits` a
    weight, if so.
    """
    least = sum(options[0] for options in costs(model)) / budget(model, 1)
    return (
        f"needs {least:.2f} stored bits a weight even with all layers at {BITS[0]} bits"
        if least > average_bits
        else None
    )


def uniform(cost: Sequence[Sequence[int]], limit: int) -> int:
    """Return the highest level that all layers can have together for `limit` bits;
    ValueError if there is none.
    """
    fitting = [v for v, column in enumerate(zip(*cost, strict=True)) if sum(column) <= limit]
    if not fitting:
        raise ValueError(
            f"{sum(options[0] for options in cost)} bits with all layers at the lowest level, "
            f"{limit} allowed: raise average_bits"
        )
    return fitting[-1]


def rounded(model: nn.Module, image: Tensor) -> dict[str, list[Codes]]:
    """Fold the batch norms of `model`, round all but the prunable layers for good, and
    return the prunable ones' codes at each level.

    `image` (1, C, H, W) is run once to see which batch norm follows which convolution.
    """
    fold_batchnorms(model, image)
    inner = prunable(model)
    for name, layer in weighted(model).items():
        if name not in inner:
            w = layer.weight.flatten(1)
            store_as_codes(layer, round_to_nearest(w, rule(OTHERS, w.shape[1])))
    weights = {name: layer.weight.flatten(1) for name, layer in inner.items()}
    return {
        name: [round_to_nearest(w, rule(bits, w.shape[1])) for bits in BITS]
        for name, w in weights.items()
    }


@torch.no_grad()
def logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return what `model` makes of `images`, in batches of 128."""
    return torch.cat([model(batch) for batch in images.split(BATCH)])
