"""ECoFLaP: choose each block's sparsity by how much the loss moves when its weights are
shaken, then prune inside with Wanda.

Sung, Yoon, Bansal, "ECoFLaP: Efficient Coarse-to-Fine Layer-Wise Pruning for
Vision-Language Models", ICLR 2024, arXiv 2310.02998.

Coarse: the weight W of each layer is shaken by z ~ N(0, I), drawn anew for each batch
of images, and the change of the loss L is added up:

    G = sum over batches of |L(W + eps z) - L(W - eps z)| / (2 eps)

Here eps = 1e-3, and there are 8 batches of 8 images. The score S_b of a block is the
sum of the G of its weights.

The scores decide how many weights each block keeps. No block may be sparser than a cap
s_max = s + `margin`, so that each keeps at least the share 1 - s_max. The weights to be
kept beyond these are handed out in proportion to S_b; where a block is full, all its
weights kept, the rest of its share goes to the others.

Fine: the model is pruned block by block, each on the inputs that come from the pruned
blocks before it. Layers are pruned per output row, at the sparsity of their block: the
weights of lowest |W_ij| ||X_j||_2 go, Wanda's metric, with the norm of input feature j
over the calibration images.

Arguments:
    sparsity: s, the share of all prunable weights together that becomes zero
    margin: by how much the share of zeros in a block may exceed s; 0 makes all blocks
        equally sparse, 1 lifts the cap
    bn_passes: passes over the calibration images by which the statistics of batch norms
        are re-estimated afterwards (a convention of this benchmark); 0 leaves them

Assumed:
    - L is the cross-entropy on images of train, in eval mode and not augmented. The
      images are drawn at random and are the same for all weights.
    - A block is a residual block; a prunable layer outside of any is one of its own.
    - Convolutions are treated as in Wanda: feature j is (channel, ky, kx) of the
      unfolded input, a row is a filter.
    - The budget is met exactly. Shares are rounded up; what is then kept beyond the
      budget is taken, one weight at a time, from the block that keeps most (the
      authors' code adds to that block instead).
    - Where a layer's zeros do not divide by its rows, those rows whose next weight
      scores lowest give one more.
    - If all blocks that are not yet full score 0, they get their shares by room: by how
      many weights each could still keep.

Checked against:
    - github.com/ylsung/ECoFLaP at 59dac0a, LayerSparsity with the sign of its removal
      loop set right: scores for the same z equal to 2e-6, 2,000 random allocations
      equal within 3 weights (float32 there).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method, Split
from methods.parts.network.gram import norms
from methods.parts.network.layers import Layer, by_block, prunable
from methods.parts.network.walk import stages
from methods.parts.pruning.masks import Passes, Sparsity, lowest, no_norms, recover, zero
from methods.parts.pruning.row_masks import lowest_per_row

EPS, IMAGES, BATCH = 1e-3, 64, 8


@torch.no_grad()
def shaken(model: nn.Module, W: Tensor, data: Split, generator: torch.Generator) -> float:
    """Return G, the sum over batches of |L(W + eps z) - L(W - eps z)| / (2 eps), for
    one weight of `model`; W is left as it was.
    """
    G, original = 0.0, W.clone()
    for images, labels in zip(data.images.split(BATCH), data.labels.split(BATCH), strict=True):
        step = EPS * torch.randn(W.shape, generator=generator).to(W.device)
        loss = []
        for shifted in (original + step, original - step):
            W.copy_(shifted)
            loss.append(float(nn.functional.cross_entropy(model(images).double(), labels)))
        G += abs(loss[0] - loss[1]) / (2 * EPS)
    W.copy_(original)
    return G


def kept(S: Sequence[float], n: Sequence[int], s: float, s_max: float) -> list[int]:
    """Return how many of its n_b weights each block keeps: at least 1 - s_max of them,
    the rest in proportion to S_b, sum(n) - round(s sum(n)) in all.
    """
    K, keep = sum(n) - round(s * sum(n)), [ceil(round(size * (1 - s_max), 6)) for size in n]
    while sum(keep) < K:
        open_S = [score if k < size else 0.0 for score, k, size in zip(S, keep, n, strict=True)]
        share = (
            open_S
            if sum(open_S) > 0
            else [float(size - k) for k, size in zip(keep, n, strict=True)]
        )
        rest, total = K - sum(keep), sum(share)
        keep = [
            min(size, k + ceil(part / total * rest))
            for size, k, part in zip(n, keep, share, strict=True)
        ]
    while sum(keep) > K:
        keep[keep.index(max(keep))] -= 1
    return keep


def split_zeros(zeros: int, sizes: Sequence[int]) -> list[int]:
    """Divide `zeros` among layers of these sizes, each within one of its proportional
    share.
    """
    bounds = [zeros * end // sum(sizes) for end in accumulate(sizes, initial=0)]
    return [end - start for start, end in pairwise(bounds)]


def row_mask(metric: Tensor, zeros: int) -> Tensor:
    """Mark the same number of lowest entries in each row of `metric`, and one more in
    the rows where that one is lowest; `zeros` in all.
    """
    each, more = divmod(zeros, len(metric))
    mask = lowest_per_row(metric, each)
    if more:
        following = lowest_per_row(metric, each + 1) & ~mask  # one in each row
        mask |= following & lowest(metric[following], more)[:, None]
    return mask


@dataclass(frozen=True)
class ECoFLaP(Method):
    """Zero `sparsity` of the prunable weights, at most `sparsity` + `margin` of a
    block's.
    """

    sparsity: Sparsity = 0.5
    margin: Annotated[float, Field(ge=0, le=1)] = 0.1
    bn_passes: Passes = 1

    family = "pruning"
    paper = "Sung et al., ICLR 2024, arXiv 2310.02998"
    needs = "labels"
    realisation = "masked"
    stochastic = True
    identity = {"sparsity": 0.0, "bn_passes": 0}
    strongest = {"sparsity": 0.99}

    def skip(self, model: nn.Module) -> str | None:
        return no_norms(model, self.bn_passes)

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        layers = prunable(model)
        zeros = self.zeros(by_block(model, layers), scores(model, layers, data))
        for stage in stages(model, layers, data.calibration):
            norm = norms(stage.module, stage.layers, stage.inputs)
            masks = {
                name: row_mask(layer.weight.flatten(1).abs() * norm[name], zeros[name])
                for name, layer in stage.layers.items()
            }
            zero(model, {name: mask.view_as(layers[name].weight) for name, mask in masks.items()})
        return recover(model, data, self.bn_passes)

    def zeros(
        self, groups: Sequence[Mapping[str, Layer]], G: Mapping[str, float]
    ) -> dict[str, int]:
        """Return how many weights of each layer go, given the layers block by block and
        their G.
        """
        sizes = [[layer.weight.numel() for layer in group.values()] for group in groups]
        n = [sum(size) for size in sizes]
        keep = kept(
            [sum(G[name] for name in group) for group in groups],
            n,
            self.sparsity,
            min(1.0, self.sparsity + self.margin),
        )
        shares = [
            split_zeros(size - k, parts) for size, k, parts in zip(n, keep, sizes, strict=True)
        ]
        return {
            name: share
            for group, parts in zip(groups, shares, strict=True)
            for name, share in zip(group, parts, strict=True)
        }


def scores(model: nn.Module, layers: Mapping[str, Layer], data: Data) -> dict[str, float]:
    """Return the G of each layer, on IMAGES images of train drawn at random."""
    train = data.train
    chosen = torch.randperm(len(train.labels), generator=data.generator("images"))[:IMAGES].to(
        train.labels.device
    )
    drawn = Split(train.images[chosen], train.labels[chosen])
    return {
        name: shaken(model, layer.weight, drawn, data.generator(name))
        for name, layer in layers.items()
    }
