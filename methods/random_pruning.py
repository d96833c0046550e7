"""Random pruning: zero a random share of each layer's weights (unstructured).

A control of this benchmark, without a paper of its own; see Blalock et al., "What is
the state of neural network pruning?", MLSys 2020, arXiv 2003.03033.

This is the control of every pruning criterion: it has none. Each of the n weights of a
layer gets a score, i.i.d. from N(0, 1), and the k = round(s n) lowest are zeroed. The
scores come from a generator that depends on the seed and the layer's name alone.
Densities are uniform: every layer keeps the same share, but for stem, classifier and
depth-wise convolutions, which stay whole.

Afterwards the statistics of batch norms are re-estimated on the calibration images, as
for every one-shot pruning here.

Arguments:
    sparsity: s, the share of each layer's weights that becomes zero
    bn_passes: passes over the calibration images by which the statistics of batch norms
        are re-estimated afterwards (a convention of this benchmark); 0 leaves them

Checked against:
    - Exact counts: round(s n) zeros in every layer.
    - The expected overlap 0.5 of two masks at s = 0.5 (the share of weights on which
      they agree).
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
