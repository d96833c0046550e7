"""EvoPress on sparsity: search by evolution how many weights each layer keeps, the
total fixed, for the choice whose logits stay closest to dense's.

Sieberling, Kuznedelev, Kurtic, Alistarh, EvoPress: Accurate Dynamic Model Compression
via Evolutionary Search, ICML 2025, arXiv 2410.14649. A layer has a ladder of levels, up
to 8 to either side of uniform sparsity, the same number of weights apart in all layers:
a switch (one layer up, one down) keeps the total. SparseGPT (Frantar, Alistarh, arXiv
2301.00774; blocks of 128 columns, damping 0.01) makes every level of every layer
beforehand, on the dense model's inputs. From uniform levels on, each generation makes
`offspring` distinct children of the parent by min(a, b) switches, a and b drawn from 1,
2, 3. Fitness is KL(dense || child) on calibration images, by stages: all children on
few, the fittest together with the parent on more, drawn anew for every stage. The
fittest is the next parent. `generations` 0 is uniform sparsity. Zeros are ceil(s n) of
the n prunable weights of the model, whatever the levels.

ASSUMED: numbers scaled down for small models (the paper's in brackets): 12 children
(64), 16 generations (400), 2 and 1 survivors (8, 2, 1) on 16 and 64 images; a step is
1/24 of the mean layer (1e6 weights for Mistral 7B, 1/31), so a layer too small for one
stays uniform. A convolution is SparseGPT's on unfolded windows. Batch norms: statistics
re-estimated for every child on the images that judge it (with `bn_passes` 0 never), and
at the end. Counts are exact: up to the end c of a block of columns floor(z c / n) of a
layer's z zeros are set (the authors round for each block). A child equal to its parent
is drawn anew (the script allows one).

Checked against: github.com/IST-DASLab/EvoPress at 50888a0: the ladders of src/pruner.py
for 60 layers (equal to a weight); src/fast_obc.py on all layers of a trained ResNet,
ViT and Mixer at three levels: masks equal in 139 of 201 cases, weights then to 8e-5 of
the largest, in all at most 0.05 % of a model's mask entries different (rounding per
block, float32 there), layer errors equal to 2.3 %; evo_prune_search.py run whole on
tables in place of a language model: 2,000 children of one parent are distributed nearly
as theirs (total variation 0.11, between two samples of ours 0.07; theirs draws both
layers of a switch before it moves either, `_evolve` moves all ups, then all downs); 25
seeds of searches of 10 layers on each of two tables: same median and best loss, the
best reached 9 times of 50 by either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.allocation.evolve import State, children, evolve
from methods.parts.network.batchnorm import has_batchnorm, recalibrate
from methods.parts.network.gram import moments
from methods.parts.network.layers import prunable
from methods.parts.pruning.masks import Passes, Sparsity, no_norms, recover
from methods.parts.pruning.row_masks import lowest_per_row
from methods.parts.quantization.columns import BLOCK, by_blocks, by_columns, upper_factor
from methods.parts.quantization.levels import logits
from methods.parts.training.losses import soft_loss

LEVELS, STEPS, PERCDAMP = 8, 24, 0.01
STAGES = ((2, 16), (1, 64))  # survivors, images


def uniform(s: float, sizes: Sequence[int]) -> list[int]:
    """Return how many weights layers of these sizes keep, n - ceil(s n) of all n, each
    its share to within one.
    """
    keep = sum(sizes) - ceil(round(s * sum(sizes), 6))
    return [
        end - start
        for start, end in pairwise(
            keep * total // sum(sizes) for total in accumulate(sizes, initial=0)
        )
    ]


def ladder(keep: int, size: int, step: int) -> list[int]:
    """Return what a layer of `size` weights keeps at each level: `keep`, and up to
    LEVELS steps less or more, from nothing to all.
    """
    return sorted({k for v in range(-LEVELS, LEVELS + 1) if 0 <= (k := keep + v * step) <= size})


def pruned(W: Tensor, H: Tensor, zeros: Sequence[int]) -> Tensor:
    """Return W (rows, n) by SparseGPT with each of these numbers of `zeros`: (levels,
    rows, n). A level's rows stand below those of the level before.
    """
    dead = H.diagonal() == 0
    R = upper_factor(H + dead.diag().to(H.dtype), PERCDAMP)  # U^-1
    worth = R.diagonal().masked_fill(dead, 0)  # 1 / U_jj

    def block(B: slice, w: Tensor) -> Tensor:
        cost = (w.T * worth[B]).square().reshape(len(zeros), 1, -1)
        counts = [z * B.stop // len(H) - z * B.start // len(H) for z in zeros]
        mask = torch.cat([lowest_per_row(c, k) for c, k in zip(cost, counts, strict=True)]).view(
            w.T.shape
        )
        return by_columns(w, R[B, B], lambda k, w_k: w_k.masked_fill(mask[:, k], 0))

    return by_blocks(W.repeat(len(zeros), 1).T.contiguous(), R, BLOCK, block).T.reshape(
        len(zeros), *W.shape
    )


def database(model: nn.Module, images: Tensor, keep: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the weight of each prunable layer at each of its levels (levels, *shape),
    pruned on the inputs that `images` make in `model` as it is.
    """
    layers = prunable(model)
    H = moments(model, layers, images)
    weights = {name: layer.weight.detach() for name, layer in layers.items()}
    zeros = [
        [W.numel() - k for k in levels] for W, levels in zip(weights.values(), keep, strict=True)
    ]
    return [
        pruned(W.flatten(1), H[name], z).view(-1, *W.shape)
        for (name, W), z in zip(weights.items(), zeros, strict=True)
    ]


@dataclass(frozen=True)
class EvoPressSparsity(Method):
    """Zero `sparsity` of the prunable weights, divided among the layers in
    `generations` of `offspring` children.
    """

    sparsity: Sparsity = 0.5
    generations: Annotated[int, Field(ge=0)] = 16
    offspring: Annotated[int, Field(ge=1)] = 12
    bn_passes: Passes = 1

    family = "allocation"
    paper = "Sieberling et al. 2025, arXiv 2410.14649"
    needs = "calibration"
    realisation = "masked"
    stochastic = True
    identity = {"sparsity": 0.0, "bn_passes": 0}
    strongest = {"sparsity": 0.99, "generations": 3, "offspring": 4}

    def skip(self, model: nn.Module) -> str | None:
        return no_norms(model, self.bn_passes)

    @torch.no_grad()
    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Prune each layer to each of its levels, search, and keep the levels found."""
        layers, images, generator = prunable(model), data.calibration, data.generator("evopress")
        sizes = [layer.weight.numel() for layer in layers.values()]
        even, step = (
            uniform(self.sparsity, sizes),
            round(sum(sizes) / len(sizes) / STEPS) if self.sparsity else 0,
        )
        keep = [ladder(k, size, step) for k, size in zip(even, sizes, strict=True)]
        dense, options = logits(model, images), database(model, images, keep)

        def put(state: State) -> None:
            for layer, versions, v in zip(layers.values(), options, state, strict=True):
                layer.weight.copy_(versions[v])

        def fitness(states: Sequence[State], count: int) -> list[float]:
            chosen = torch.randperm(len(images), generator=generator)[:count].to(images.device)
            x, target, found = images[chosen], dense[chosen], []
            for state in states:
                put(state)
                if self.bn_passes and has_batchnorm(model):
                    recalibrate(model, x)
                found.append(float(soft_loss(logits(model, x), target, 1.0)))
            return found

        start = tuple(levels.index(k) for levels, k in zip(keep, even, strict=True))
        put(
            evolve(
                start,
                self.generations,
                STAGES,
                lambda parent: children(parent, self.offspring, keep, sum(even), generator),
                fitness,
            )
        )
        return recover(model, data, self.bn_passes)
