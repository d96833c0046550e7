"""Random pruning: zero a random share of each layer's weights (unstructured).

The control of every pruning criterion (Blalock et al., "What is the state of neural
network pruning?", MLSys 2020). Per layer, i.i.d. N(0, 1) scores are drawn from a
generator that depends on the seed and the layer's name alone, and the k = round(s n)
lowest are zeroed; densities are uniform over layers. Afterwards BatchNorm statistics
are re-estimated on the calibration images (`bn_passes`; a convention of this
benchmark), as for every one-shot pruning here.

Checked against: exact counts and the expected overlap 0.5 of two masks at s = 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.network.layers import prunable
from methods.parts.pruning.masks import Passes, Sparsity, lowest, no_norms, recover, zero


def random_mask(shape: torch.Size, s: float, generator: torch.Generator) -> Tensor:
    """Mark round(s n) entries of a tensor of `shape` at random."""
    return lowest(torch.randn(shape, generator=generator), round(s * shape.numel()))


@dataclass(frozen=True)
class RandomPruning(Method):
    """Zero a random `sparsity` of the weights of every prunable layer."""

    sparsity: Sparsity = 0.5
    bn_passes: Passes = 1

    family = "pruning"
    paper = "control, see Blalock et al. 2020, arXiv 2003.03033"
    needs = "calibration"
    realisation = "masked"
    stochastic = True
    identity = {"sparsity": 0.0, "bn_passes": 0}
    strongest = {"sparsity": 0.99}

    def skip(self, model: nn.Module) -> str | None:
        return no_norms(model, self.bn_passes)

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        weights = {name: layer.weight for name, layer in prunable(model).items()}
        zero(
            model,
            {
                name: random_mask(w.shape, self.sparsity, data.generator(name)).to(w.device)
                for name, w in weights.items()
            },
        )
        return recover(model, data, self.bn_passes)
