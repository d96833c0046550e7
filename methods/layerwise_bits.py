"""Layer-wise quantisation: important blocks keep high bits, the others get low bits, as
many of them as a fractional average asks for.

Dumitru, Yadav, Maheshwary, Clotan, Madhusudhan, Surdeanu, "Layer-Wise Quantization: A
Pragmatic and Effective Method for Quantizing LLMs Beyond Integer Bit-Levels" (published
as "Variable Layerwise Quantization"), Findings of ACL 2025, arXiv 2406.17415.

There are two scores of a block. LIM = -cos(X, Y) of its input X and its output Y, the
mean over tokens and images: the higher, the more important. ZD is the share of its
weights with z > 1, more than one standard deviation above their mean: the lower, the
more important.

All blocks start at `high` bits. The least important first, they go to `low` bits until
the average holds. A model is skipped if lowering every block that may be lowered is not
enough.

Arguments:
    average_bits: stored bits per weight, averaged over the weights of all layers in
        `methods.parts.network.layers.prunable`, float16 scales and uint8 zero points
        included; never exceeded; 32 leaves the model as it is
    score: what ranks the blocks: "lim", measured on the calibration images, or "zd",
        which needs no images
    high: width of the codes of the important blocks
    low: width of the codes of the others; must be below `high`

Assumed:
    - The base quantiser is RTN with the grids of
      `methods.parts.quantization.quantize`, after batch norms are folded. The paper
      also uses GPTQ.
    - 2 bits are in groups of 64 weights instead of 128.
    - Stem, classifier and depth-wise convolutions get 8 bits and are not in the
      average.
    - The average is over weights, where the paper counts blocks.
    - For ZD, a block's layers are flattened together, and z is signed: a weight far
      below the mean does not count.
    - In a CNN a residual block is a block, and a position of the map is a token.
    - With LIM, blocks without an identity shortcut stay at `high` bits, as the cosine
      is not defined there.
    - Layers outside of any block always stay at `high` bits.

Checked against:
    - Worked examples.
    - Both scores in numpy on the dense ViT of digits, LIM from its blocks' inputs and
      outputs, ZD from their weights: equal to 1e-6.
    - There is no reference code: the authors' repository holds none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from methods import Data, Method, store_as_codes
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import Layer, blocks, prunable, weighted
from methods.parts.quantization.quantize import KEEP, OTHERS, round_to_nearest, rule


def lim(X: Tensor, Y: Tensor) -> Tensor:
    """Return -cos(X, Y) (images,) over the channels, mean over tokens (B, N, C) or
    positions (B, C, H, W), in float64.
    """
    return (
        -nn.functional.cosine_similarity(X.double(), Y.double(), dim=1 if X.ndim == 4 else -1)
        .flatten(1)
        .mean(1)
    )


def zd(w: Tensor) -> float:
    """Return the share of the entries of `w` (n,) that lie more than one standard
    deviation above the mean.
    """
    w = w.double()
    return float((w - w.mean() > w.std(correction=0)).double().mean())


def stored_bits(rows: int, columns: int, bits: int, group: int) -> int:
    """Return the bits of a weight (rows, columns) as codes: `bits` an entry, a float16
    scale and a uint8 zero point per row and group of columns.
    """
    return bits * rows * columns + (16 + 8) * rows * -(-columns // group)


def to_lower(
    high: Mapping[str, int], low: Mapping[str, int], order: Sequence[str], limit: float
) -> list[str]:
    """Return the first names of `order` that must go from `high` to `low` stored bits
    for the sum over all of `high` to be at most `limit`.
    """
    total, lowered = sum(high.values()), list[str]()
    for name in order:
        if total > limit:
            total += low[name] - high[name]
            lowered.append(name)
    if total > limit:
        raise ValueError(
            f"{total} bits with all that may be lowered at low bits, {limit:.0f} allowed: raise "
            "average_bits or lower `high` or `low`"
        )
    return lowered


def shortcut(block: Any) -> bool:
    """Say whether `block` adds its input, as it is, to its output."""
    if isinstance(block, (BasicBlock, Bottleneck)):
        return block.downsample is None
    return (
        bool(block.has_skip)
        if isinstance(block, (InvertedResidual, DepthwiseSeparableConv))
        else True
    )


def layers_of(model: nn.Module) -> dict[str, dict[str, Layer]]:
    """Return the prunable layers of each block, and under "" those outside of any."""
    groups: dict[str, dict[str, Layer]] = {name: {} for name in ["", *blocks(model)]}
    for name, layer in prunable(model).items():
        groups[next((block for block in blocks(model) if name.startswith(block + ".")), "")][
            name
        ] = layer
    return {name: layers for name, layers in groups.items() if layers}


def by_zd(model: nn.Module, names: Sequence[str], data: Data) -> dict[str, float]:
    """Return the importance -ZD of each of the blocks `names`."""
    groups = layers_of(model)
    return {
        name: -zd(torch.cat([layer.weight.detach().flatten() for layer in groups[name].values()]))
        for name in names
    }


@torch.no_grad()
def by_lim(model: nn.Module, names: Sequence[str], data: Data) -> dict[str, float]:
    """Return the importance LIM of each of the blocks `names`, on the calibration
    images.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _m, args, output, name=name: found[name].append(lim(args[0], output))
        )
        for name in names
    ]
    try:
        for batch in data.calibration.split(128):
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: float(torch.cat(values).mean()) for name, values in found.items()}


Score = Callable[[nn.Module, Sequence[str], Data], dict[str, float]]
SCORES: Mapping[str, Score] = {"lim": by_lim, "zd": by_zd}


@dataclass(frozen=True)
class LayerwiseBits(Method):
    """Give `low` bits to the least important blocks, and `high` to the others, for
    `average_bits` stored bits a weight at most.
    """

    average_bits: Annotated[float, Field(ge=2, le=32)] = 3.5
    score: Literal["lim", "zd"] = "lim"
    high: Literal[3, 4, 5, 6, 7, 8] = 4
    low: Literal[2, 3, 4, 5, 6, 7] = 2

    family = "quantization"
    paper = "Dumitru et al. 2025, arXiv 2406.17415"
    needs = "calibration"
    realisation = "packed"
    identity = {"average_bits": KEEP}
    strongest = {
        "average_bits": 2.8,
        "score": "zd",
        "high": 3,
        "low": 2,
    }

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")

    def skip(self, model: nn.Module) -> str | None:
        if self.average_bits == KEEP:
            return None
        high, low, weights = self.costs(model)
        least = (
            sum(high.values()) - sum(high[name] - low[name] for name in self.free(model))
        ) / weights
        return (
            (
                f"needs {least:.2f} stored bits a weight even with all that may be lowered at "
                f"{self.low} bits"
            )
            if least > self.average_bits
            else None
        )

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Fold the batch norms, score the blocks, lower the least important, round
        everything to nearest.
        """
        if self.average_bits == KEEP:
            return model
        fold_batchnorms(model, next(model.parameters()).new_zeros(1, *data.image_shape))
        importance = SCORES[self.score](model, self.free(model), data)
        high, low, weights = self.costs(model)
        lowered = to_lower(
            high, low, sorted(importance, key=importance.__getitem__), self.average_bits * weights
        )
        bits = {
            name: self.low if block in lowered else self.high
            for block, layers in layers_of(model).items()
            for name in layers
        }
        for name, layer in weighted(model).items():
            w = layer.weight.flatten(1)
            store_as_codes(layer, round_to_nearest(w, rule(bits.get(name, OTHERS), w.shape[1])))
        return model

    def free(self, model: nn.Module) -> list[str]:
        """Return the names of the blocks that may be lowered, first to last."""
        names = [name for name in layers_of(model) if name]
        return (
            names
            if self.score == "zd"
            else [name for name in names if shortcut(model.get_submodule(name))]
        )

    def costs(self, model: nn.Module) -> tuple[dict[str, int], dict[str, int], int]:
        """Return the stored bits of each block at `high` and at `low`, and the number
        of weights of all.
        """
        shapes = {
            name: [layer.weight.flatten(1).shape for layer in layers.values()]
            for name, layers in layers_of(model).items()
        }
        high, low = (
            {
                name: sum(
                    stored_bits(rows, columns, bits, rule(bits, columns).group)
                    for rows, columns in pairs
                )
                for name, pairs in shapes.items()
            }
            for bits in (self.high, self.low)
        )
        return high, low, sum(shape.numel() for pairs in shapes.values() for shape in pairs)
