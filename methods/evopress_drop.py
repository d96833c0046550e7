"""EvoPress on depth: search by evolution which `count` residual units to leave out, for
the choice whose logits stay closest to dense's.

Sieberling, Kuznedelev, Kurtic, Alistarh, "EvoPress: Accurate Dynamic Model Compression
via Evolutionary Search", ICML 2025, arXiv 2410.14649.

This is the search of `evopress` (`methods.parts.allocation.evolve`) over residual units
instead of layers. A unit has two levels, left out or kept, and all units cost the same:
a move puts one unit back and takes another out. A candidate is judged by
KL(dense || candidate) on calibration images.

To leave out k of n units, the search runs for this many generations, as in the paper's
script:

    k (n - k) / 1.5, rounded

Arguments:
    unit: what a unit is: "block" a whole residual block; "attention" the attention
        layer of a transformer block, or in a mixer the MLP across tokens; "mlp" the MLP
        of a block, in a mixer that across channels; "joint" either of these two. A CNN
        has only "block"
    count: k, the number of units left out; 0 keeps the model

Assumed:
    - A generation has 16 children (the script: 32).
    - There are 2 and then 1 survivors, on 64 and 256 images.
    - The first parent is the fittest of 16 random candidates (the script: 64) on 64
      images.
    - Units of kind "joint" are attention layers and MLPs in one pool; the paper drops
      as many of the one as of the other.
    - In a CNN the units are blocks with an identity shortcut.
    - The statistics of batch norms are re-estimated for every candidate on the images
      that judge it, and at the end on all calibration images.

Checked against:
    - github.com/IST-DASLab/EvoPress at 50888a0, evo_drop_search.py run whole on a table
      of losses with interactions: both find the best 4 of 10 blocks for 25 of 25 seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from methods import Data, Method
from methods.parts.allocation.evolve import State, children, evolve, fittest, under
from methods.parts.depth.drop import Kind, halved, too_few, units
from methods.parts.network.batchnorm import has_batchnorm, recalibrate
from methods.parts.quantization.levels import logits
from methods.parts.training.losses import soft_loss

STAGES = ((2, 64), (1, 256))  # survivors, images
FIRST, FIRST_IMAGES, CHILDREN = 16, 64, 16


def put(model: nn.Module, modules: Mapping[str, nn.Module], state: State) -> None:
    """Put the units of level 1 in their places, and identities in those of the
    others.
    """
    for (name, unit), kept in zip(modules.items(), state, strict=True):
        model.set_submodule(name, unit if kept else nn.Identity())


@dataclass(frozen=True)
class EvoPressDrop(Method):
    """Drop the `count` units of a kind that evolution finds."""

    unit: Kind = "block"
    count: Annotated[int, Field(ge=0)] = 1

    family = "allocation"
    paper = "Sieberling et al. 2025, arXiv 2410.14649"
    needs = "calibration"
    stochastic = True
    identity = {"unit": "block", "count": 0}
    strongest = {"unit": "block", "count": 4}

    def skip(self, model: nn.Module) -> str | None:
        return too_few(model, self.unit, self.count)

    @torch.no_grad()
    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.count == 0:
            return model
        names, images, generator = (
            units(model, self.unit),
            data.calibration,
            data.generator("evopress"),
        )
        dense = logits(model, images)
        halved(model, names, self.unit)
        modules = {name: model.get_submodule(name) for name in names}

        def fitness(states: Sequence[State], count: int) -> list[float]:
            chosen = torch.randperm(len(images), generator=generator)[:count].to(images.device)
            x, target, found = images[chosen], dense[chosen], []
            for state in states:
                put(model, modules, state)
                if has_batchnorm(model):
                    recalibrate(model, x)
                found.append(float(soft_loss(logits(model, x), target, 1.0)))
            return found

        cost, left = [[0, 1]] * len(modules), len(modules) - self.count
        first = list(dict.fromkeys(under(cost, 1, left, generator) for _ in range(FIRST)))
        (parent,) = fittest(first, 1, FIRST_IMAGES, fitness)
        generations = round(self.count * left / 1.5)
        put(
            model,
            modules,
            evolve(
                parent,
                generations,
                STAGES,
                lambda parent: children(parent, CHILDREN, cost, left, generator),
                fitness,
            ),
        )
        if has_batchnorm(model):
            recalibrate(model, images)
        return model
