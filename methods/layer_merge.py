"""LayerMerge: remove activations and convolutions together, chosen by a dynamic program
under a cost, and merge the convolutions left in a row.

Kim, El Halabi, Ji, Song, "LayerMerge: Neural Network Depth Compression through Layer
Pruning and Merging", ICML 2024, arXiv 2406.12837.

A layer is a convolution with its norm and the activation behind it; the layers of all
residual blocks are numbered 1..D. A segment (s, e], the layers s + 1 to e, is to become
one convolution. It loses its inner activations, and it may lose reducible convolutions,
with their norms: those of stride 1 with as many channels out as in. What stays becomes
one convolution of size 1 + sum (k - 1), with k the size of each kernel.

Several subsets of convolutions give the same size. Of those that also agree in being
depth-wise or not, the one with the largest sum of L1 norms of the kernels counts. An
activation stands behind a segment of several layers; at the end of a block it comes
after the residual addition.

Each segment has a cost T and an importance I, measured with that segment alone changed.
Let V[e, t] be the largest sum of importances of segments that cover the first e layers
at a cost of at most t. A dynamic program finds it:

    V[e, t] = max over segments (s, e] of V[s, t - T] + I

Ties, after rounding to 7 decimals, go to the cheaper way.

The model cut into the chosen segments is fine-tuned, with all padding of a segment
moved to its first convolution. Only then is it merged, which is exact: norms are
folded, kernels are composed, and a segment that spans its block swallows the shortcut
(the identity, or what acts on every stride-th pixel by itself).

Arguments:
    cost: share of dense's T that may remain, layers outside of blocks included; 1 keeps
        dense, untrained
    traffic: MACs that T counts for one element read or written; 0 makes `cost` a share
        of MACs. 40 is about the arithmetic per element of memory of the authors' RTX
        2080 Ti.
    images: number of calibration images, the first ones, on which I is measured

Assumed:
    - Segments lie inside one block (BasicBlock, Bottleneck, InvertedResidual,
      DepthwiseSeparableConv).
    - A block with the identity as shortcut may also go whole: T = 0, I is measured, and
      no activation is left.
    - In a segment, no kernel wider than 1 stands behind a stride.
    - Blocks with squeeze-and-excitation, dilation or drop_path stay as they are.
    - Deviation: T is no latency, for a method may not read the clock. It is MACs +
      `traffic` x (elements read + written) of each convolution and linear layer; batch
      norms, activations and additions are free.
    - T is counted in steps of 1/10000 of the budget for blocks, rounded up so that the
      budget holds. The authors round down.
    - A shortcut with weights is paid by the last layer of its block, unless it is
      swallowed.
    - Deviation: I = exp(-KL(dense || changed)) of the logits on `images` calibration
      images, after re-estimating batch norms on them. The authors train one epoch for
      each entry of the table instead.
    - An unchanged layer has I = 1. The authors reset and retrain it.
    - Fine-tuning is the track's recipe.

Checked against:
    - The authors' code (github.com/snu-mllab/LayerMerge at 3dcddb6), run side by side
      in float64, on ResNet-34 and MobileNetV2 with six and eight blocks merged or
      pruned: outputs are equal before merging and, to 1e-15 of the logits, after it.
    - Its merging of pairs of convolutions: equal to 1e-15.
    - Its optimal_patterns on 150 random tables: the same segments, except that it
      refuses some budgets that can be met.
    - Its kept subsets in 300 rows of tables: they differ only where depth-wise and
      dense convolutions mix, because there it looks at only one of the combinations
      that give a size.
    - In the tests: every segmentation tried, on random tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations
from math import ceil, exp, inf
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.depth.conv_merge import (
    CONVS,
    Chain,
    Segment,
    chain,
    mergeable,
    merged,
    segmented,
)
from methods.parts.network.batchnorm import recalibrate
from methods.parts.network.layers import weighted
from methods.parts.training.losses import soft_loss
from methods.parts.training.train import train

STEPS = 10_000  # of the budget, in which costs are counted


@dataclass(frozen=True)
class Entry:
    """A row of the tables: cost T, in steps of the budget, and importance I of the
    segment (start, end] of the network, and what it is in its block.
    """

    start: int
    end: int
    T: int
    I: float  # noqa: E741
    block: str
    segment: Segment


def form(convs: Sequence[nn.Conv2d]) -> tuple[int, bool]:
    """Return the size of the kernel that `convs` in a row make, and whether it is
    depth-wise.
    """
    return 1 + sum(conv.kernel_size[0] - 1 for conv in convs), all(
        conv.groups == conv.in_channels for conv in convs
    )


def kept_subsets(convs: Sequence[nn.Conv2d], start: int, end: int) -> list[tuple[int, ...]]:
    """Return, for each form that convolutions start .. end - 1 can take as one, the
    subset to keep: the one of largest L1 norm.
    """
    best: dict[tuple[int, bool], tuple[float, tuple[int, ...]]] = {}
    irreducible = {
        i
        for i in range(start, end)
        if convs[i].stride[0] > 1 or convs[i].in_channels != convs[i].out_channels
    }
    for kept in (
        kept
        for count in range(end - start, 0, -1)
        for kept in combinations(range(start, end), count)
    ):
        chosen = [convs[i] for i in kept]
        wide_behind_stride = any(
            a.stride[0] > 1 and b.kernel_size[0] > 1 for a, b in combinations(chosen, 2)
        )
        norm = sum(float(conv.weight.detach().abs().sum()) for conv in chosen)
        if (
            irreducible <= set(kept)
            and not wide_behind_stride
            and norm > best.get(form(chosen), (-inf,))[0]
        ):
            best[form(chosen)] = norm, kept
    return [kept for _, kept in best.values()]


def candidates(block: Chain) -> Iterator[Segment]:
    """Yield the segments of `block`: each layer as it is, what runs of several can
    become, and, past an identity shortcut, nothing.
    """
    convs = [layer[0] for layer in block.layers]
    for start, end in combinations(range(len(convs) + 1), 2):
        yield from (Segment(start, end, kept) for kept in kept_subsets(convs, start, end))
    if isinstance(block.shortcut, nn.Identity):
        yield Segment(0, len(convs), ())


def solve(entries: Sequence[Entry], budget: int) -> list[Entry]:
    """Return the segments that cover the network at a cost of at most `budget` with the
    largest sum of importances; ValueError if none fit.
    """
    nodes = max(entry.end for entry in entries)
    V, spent, last = (
        torch.full((nodes + 1, budget + 1), value, dtype=torch.float64)
        for value in (-inf, inf, -1.0)
    )
    V[0], spent[0] = 0, 0
    for number, entry in sorted(enumerate(entries), key=lambda pair: pair[1].end):
        before, after = (
            (entry.start, slice(0, max(0, budget + 1 - entry.T))),
            (entry.end, slice(entry.T, None)),
        )
        value, cost = V[before] + entry.I, spent[before] + entry.T
        old, new = V[after].round(decimals=7), value.round(decimals=7)
        better = (new > old) | ((new == old) & (cost < spent[after]))
        V[after], spent[after] = (
            torch.where(better, value, V[after]),
            torch.where(better, cost, spent[after]),
        )
        last[after] = torch.where(better, float(number), last[after])
    if V[nodes, budget] == -inf:
        raise ValueError("this cost is out of reach, whatever is merged and removed: ask for more")
    found: list[Entry] = []
    node, t = nodes, budget
    while node:
        found.append(entries[int(last[node, t])])
        node, t = found[-1].start, t - found[-1].T
    return found[::-1]


def element_counts(model: nn.Module, image: Tensor) -> dict[str, tuple[int, int]]:
    """Return how many elements each convolution and linear layer of `model` reads and
    writes for `image` (1, C, H, W).
    """
    counts: dict[str, tuple[int, int]] = {}
    watched = deepcopy(model)
    for name, layer in weighted(watched).items():
        layer.register_forward_hook(
            lambda _module, args, output, name=name: counts.update(
                {name: (args[0].numel(), output.numel())}
            )
        )
    watched(image)
    return counts


def importance(
    model: nn.Module, name: str, segments: Sequence[Segment], images: Tensor, dense: Tensor
) -> float:
    """Return exp(-KL(dense || changed)) on `images` with block `name` cut into
    `segments`, statistics of batch norms re-estimated.
    """
    changed = deepcopy(model)
    changed.set_submodule(name, segmented(chain(changed.get_submodule(name)), segments))
    recalibrate(changed, images)
    return exp(-soft_loss(changed(images), dense, 1.0).item())


@dataclass(frozen=True)
class LayerMerge(Method):
    """Choose the segments that fit `cost`, fine-tune the model cut into them, and merge
    each into one convolution.
    """

    cost: Annotated[float, Field(gt=0, le=1)] = 0.7
    traffic: Annotated[float, Field(ge=0)] = 40.0
    images: Annotated[int, Field(ge=1)] = 128

    family = "depth"
    paper = "Kim et al. 2024, arXiv 2406.12837"
    needs = "fine-tune"
    stochastic = True
    identity = {"cost": 1.0}
    strongest = {"cost": 0.25}

    def skip(self, model: nn.Module) -> str | None:
        return (
            None
            if any(mergeable(module) for module in model.modules())
            else "no residual block of plain convolutions and batch norms"
        )

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.cost == 1:
            return model
        chosen: dict[str, list[Segment]] = {}
        for entry in solve(self.tables(model, data.calibration[: self.images]), STEPS):
            chosen.setdefault(entry.block, []).append(entry.segment)
        changed = {
            name: cut
            for name, cut in chosen.items()
            if any(segment.end - segment.start > 1 for segment in cut)
        }
        for name, cut in changed.items():
            model.set_submodule(name, segmented(chain(model.get_submodule(name)), cut))
        train(model, data, data.fine_tune)
        for name in changed:
            model.set_submodule(name, merged(model.get_submodule(name)))
        return model

    @torch.no_grad()
    def tables(self, model: nn.Module, images: Tensor) -> list[Entry]:
        """Return cost and importance of every segment but those that cost no less than
        their layers one by one.
        """
        counts, dense = element_counts(model, images[:1]), model(images)
        T = {
            name: self.T(layer.weight[0].numel(), *counts[name])
            for name, layer in weighted(model).items()
        }
        names = [name for name, module in model.named_modules() if mergeable(module)]
        fixed = sum(
            cost
            for layer, cost in T.items()
            if not any(layer.startswith(f"{name}.") for name in names)
        )
        step = (self.cost * sum(T.values()) - fixed) / STEPS
        if step <= 0:
            raise ValueError(
                f"cost {self.cost} is out of reach: the layers outside of blocks alone have "
                f"{fixed / sum(T.values()):.3f}; ask for more"
            )
        entries: list[Entry] = []
        for name in names:
            first, n = (
                entries[-1].end if entries else 0,
                len(CONVS[type(model.get_submodule(name))]),
            )
            for segment, cost in self.priced(model, name, T, counts):
                cut = [Segment(i, i + 1, (i,)) for i in range(n)]
                cut[segment.start : segment.end] = [segment]
                value = 1.0 if len(cut) == n else importance(model, name, cut, images, dense)
                entries.append(
                    Entry(
                        first + segment.start,
                        first + segment.end,
                        ceil(cost / step),
                        value,
                        name,
                        segment,
                    )
                )
        return entries

    def priced(
        self,
        model: nn.Module,
        name: str,
        T: Mapping[str, float],
        counts: Mapping[str, tuple[int, int]],
    ) -> Iterator[tuple[Segment, float]]:
        """Yield the segments of block `name` with their costs, but those that cost no
        less than their layers one by one; T: of the layers of `model`.
        """
        module = model.get_submodule(name)
        block, layers = chain(deepcopy(module)), [f"{name}.{conv}" for conv in CONVS[type(module)]]
        single = [T[layer] for layer in layers]
        shortcut = sum(cost for layer, cost in T.items() if layer.startswith(f"{name}.")) - sum(
            single
        )
        single[-1] += shortcut
        for segment in candidates(block):
            start, end, cost = segment.start, segment.end, 0.0
            if segment.kept:
                k, depthwise = form([block.layers[i][0] for i in segment.kept])
                fan_in = k * k * (1 if depthwise else block.layers[start][0].in_channels)
                cost = self.T(fan_in, counts[layers[start]][0], counts[layers[end - 1]][1]) + (
                    shortcut if start > 0 and end == len(layers) else 0.0
                )
            if end - start == 1 or cost < sum(single[start:end]):
                yield segment, cost

    def T(self, fan_in: int, read: int, written: int) -> float:
        """Return the cost of a layer: its MACs and what stands for moving its input and
        output.
        """
        return fan_in * written + self.traffic * (read + written)
