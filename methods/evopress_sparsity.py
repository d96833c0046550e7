"""EvoPress on sparsity: search by evolution how many weights each layer keeps, the
total fixed, for the choice whose logits stay closest to dense's.

Sieberling, Kuznedelev, Kurtic, Alistarh, "EvoPress: Accurate Dynamic Model Compression
via Evolutionary Search", ICML 2025, arXiv 2410.14649.

Each layer has a ladder of levels, up to 8 to either side of uniform sparsity. A step
from one level to the next is the same number of weights in all layers, so a switch (one
layer up, one down) keeps the total.

SparseGPT (Frantar, Alistarh, arXiv 2301.00774), with blocks of 128 columns and damping
0.01, makes every level of every layer beforehand, on the inputs that the layer has in
the dense model.

The search begins at uniform levels. Each generation makes distinct children of the
parent by min(a, b) switches, with a and b drawn from 1, 2, 3. Fitness is
KL(dense || child) on calibration images; the lower, the fitter. Children are judged by
stages: all of them on few images, the fittest together with the parent on more. The
images are drawn anew for every stage. The fittest is the next parent.

Whatever the levels, ceil(s n) of the model's n prunable weights become zero. These are
the weights of all Conv2d and Linear but stem, classifier and depth-wise convolutions.

Arguments:
    sparsity: s, the share of the model's prunable weights that becomes zero
    generations: generations of the search; 0 is uniform sparsity
    offspring: children of each generation (fewer where the ladders leave too few
        choices)
    bn_passes: passes over the calibration images by which the statistics of batch norms
        are re-estimated at the end; 0 leaves them as they are, for the children too

Assumed:
    - Numbers are scaled down for small models (in brackets the paper's): 12 children
      (64), 16 generations (400), and 2 and 1 survivors (8, 2, 1) on 16 and 64 images.
    - A step is 1/24 of the weights of the mean layer; the paper's is 1e6 weights for
      Mistral 7B, 1/31 of its mean layer. A layer too small for one step stays uniform.
    - A convolution is pruned as SparseGPT prunes a matrix, on unfolded windows.
    - The statistics of batch norms are re-estimated for every child on the images that
      judge it (with `bn_passes` 0 never), and again at the end.
    - Counts are exact: in a layer of n columns and z zeros, floor(z c / n) zeros are
      set up to the end c of each block of columns. The authors round for each block.
    - A child equal to its parent is drawn anew; the authors' script allows one.

Checked against:
    - github.com/IST-DASLab/EvoPress at 50888a0, src/pruner.py: its ladders for 60
      layers are equal to a weight.
    - The same commit's src/fast_obc.py on all layers of a trained ResNet, ViT and Mixer
      at three levels: masks equal in 139 of 201 cases, and there weights to 8e-5 of the
      largest. Over all cases at most 0.05 % of a model's mask entries differ (the
      authors round per block and compute in float32); layer errors agree to 2.3 %.
    - Its evo_prune_search.py run whole on tables in place of a language model: 2,000
      children of one parent are distributed nearly as theirs (total variation 0.11;
      between two samples of ours 0.07). Theirs draws both layers of a switch before it
      moves either; `methods.parts.allocation.evolve` moves all ups, then all downs.
    - The same script, 25 seeds of searches of 10 layers on each of two tables: same
      median and best loss, and the best is reached 9 times of 50 by either.
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
