"""EvoPress: search the bits of each layer by evolution, all candidates within the
budget, the fittest being those whose logits stay closest to dense's.

Sieberling, Kuznedelev, Kurtic, Alistarh, "EvoPress: Accurate Dynamic Model Compression
via Evolutionary Search", ICML 2025, arXiv 2410.14649.

Every layer is compressed beforehand at each of several levels. A candidate picks one
level for each layer out of this database. Its fitness is KL(dense || candidate) on
calibration images; the lower, the fitter.

Each generation makes distinct children of one parent. For a child, min(a, b) random
layers go up a level, with a and b drawn from 1, 2, 3; then random layers go down until
the budget holds again. A child of more than 10 changes is drawn anew, and so is one
that takes in less than 80 % of the bits that it gives away.

Children are judged by stages: all of them on few images, the fittest on more, the last
ones together with the parent on most. The images of every stage are drawn anew. The
fittest of the last stage is the next parent.

The first parent is the fittest of random candidates. Each of these begins with all
layers at the lowest level that is over the budget; then random layers go down until it
holds.

This is the paper's search for bits. Blocks are dropped by `evopress_drop`, and sparsity
is divided among layers by `evopress_sparsity`.

Arguments:
    average_bits: stored bits a weight, float16 scales and uint8 zero points included,
        on average over the weights of all layers of
        `methods.parts.network.layers.prunable`; never exceeded; well above 8, all get 8
        bits; 32 keeps the model
    generations: generations of the search; 0 keeps the first parent
    offspring: children of each generation (fewer where the budget leaves too few
        choices)

Assumed:
    - Numbers are scaled down for small models (in brackets the paper's for bits): 12
      children (128), 30 generations (150), and 2 and 1 survivors (16, 4, 1) on 32 and
      256 images.
    - The first parent is chosen among 12 random candidates on 64 images, and the
      highest uniform level within the budget stands beside them.
    - Levels are 2, 3, 4, 6 and 8 bits by round-to-nearest, with the grids of
      `methods.parts.quantization.quantize`; the paper's are 2 to 6 bits by GPTQ.
    - Batch norms are folded into the convolutions first.
    - Stem, classifier and depth-wise convolutions get 8 bits and are not in the
      average.
    - Layers of any size trade bits with each other, which is group_rule "none" of the
      authors' scripts; their default is to trade among layers of equal size, in pairs.

Checked against:
    - github.com/IST-DASLab/EvoPress at 50888a0, evo_quant_search.py and
      evo_drop_search.py run whole on tables in place of a language model: 2,000
      children of one parent are distributed as theirs (total variation 0.067, as
      between two samples of ours).
    - The same scripts over 25 seeds: searches of 12 layers of different sizes at 3 and
      2.6 bits end in the same best state equally often (21 and 16 times); those for 4
      of 10 blocks always end in the best of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from methods import Data, Method, store_as_codes
from methods.parts.allocation.evolve import Cost, Fitness, State, children, evolve, fittest, under
from methods.parts.network.layers import prunable
from methods.parts.quantization.levels import budget, costs, logits, out_of_reach, rounded, uniform
from methods.parts.quantization.quantize import KEEP
from methods.parts.training.losses import soft_loss

STAGES = ((2, 32), (1, 256))  # survivors, images
FIRST, FIRST_IMAGES = 12, 64


@dataclass(frozen=True)
class EvoPress(Method):
    """Choose the bits of each layer in `generations` of `offspring` children, within
    `average_bits` stored bits a weight.
    """

    average_bits: Annotated[float, Field(ge=2, le=32)] = 4.0
    generations: Annotated[int, Field(ge=0)] = 30
    offspring: Annotated[int, Field(ge=1)] = 12

    family = "allocation"
    paper = "Sieberling et al. 2025, arXiv 2410.14649"
    needs = "calibration"
    realisation = "packed"
    stochastic = True
    identity = {"average_bits": KEEP}
    strongest = {"average_bits": 3.0, "generations": 3, "offspring": 4}

    def skip(self, model: nn.Module) -> str | None:
        return out_of_reach(model, self.average_bits)

    @torch.no_grad()
    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Fold the batch norms, round each layer at each level, search, and keep the
        levels found.
        """
        if self.average_bits == KEEP:
            return model
        images, generator = data.calibration, data.generator("evopress")
        dense = logits(model, images)
        options = rounded(model, images[:1])
        layers = [prunable(model)[name] for name in options]
        weights = [
            [codes.decode(layer.weight.shape) for codes in found]
            for layer, found in zip(layers, options.values(), strict=True)
        ]

        def fitness(states: Sequence[State], count: int) -> list[float]:
            chosen = torch.randperm(len(images), generator=generator)[:count].to(images.device)
            x, target, found = images[chosen], dense[chosen], []
            for state in states:
                for layer, versions, v in zip(layers, weights, state, strict=True):
                    layer.weight.data = versions[v]
                found.append(float(soft_loss(logits(model, x), target, 1.0)))
            return found

        best = self.search(costs(model), budget(model, self.average_bits), fitness, generator)
        for layer, found, v in zip(layers, options.values(), best, strict=True):
            store_as_codes(layer, found[v])
        return model

    def search(self, cost: Cost, limit: int, fitness: Fitness, generator: torch.Generator) -> State:
        """Return the level of each layer that evolution finds for at most `limit`
        bits.
        """
        level = uniform(cost, limit)
        if level == len(cost[0]) - 1:
            return (level,) * len(cost)
        first = [
            (level,) * len(cost),
            *(under(cost, level + 1, limit, generator) for _ in range(FIRST)),
        ]
        (parent,) = fittest(first, 1, FIRST_IMAGES, fitness)
        return evolve(
            parent,
            self.generations,
            STAGES,
            lambda parent: children(parent, self.offspring, cost, limit, generator),
            fitness,
        )
