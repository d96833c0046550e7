"""Global magnitude pruning: zero the smallest weights of all layers together.

Han, Pool, Tran, Dally, "Learning both weights and connections for efficient neural
networks", NeurIPS 2015: score |w|; here one-shot, without retraining. All prunable
weights are ranked in one list and exactly k = round(s n) are zeroed, ties broken by
position. The weights are ranked as trained, before any BatchNorm
folding. Afterwards BatchNorm statistics are re-estimated on the calibration images
(`bn_passes`; a convention of this benchmark).

Checked against: a worked example and torch.nn.utils.prune.global_unstructured
(same masks).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from methods import Data, Method
from methods.parts.network.layers import prunable
from methods.parts.pruning.masks import Passes, Sparsity, no_norms, recover, smallest, zero


@dataclass(frozen=True)
class Magnitude(Method):
    """Zero the smallest `sparsity` of the prunable weights."""

    sparsity: Sparsity = 0.5
    bn_passes: Passes = 1

    family = "pruning"
    paper = "Han et al., NeurIPS 2015, arXiv 1506.02626"
    needs = "calibration"
    realisation = "masked"
    identity = {"sparsity": 0.0, "bn_passes": 0}
    strongest = {"sparsity": 0.99}

    def skip(self, model: nn.Module) -> str | None:
        return no_norms(model, self.bn_passes)

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        weights = {name: layer.weight for name, layer in prunable(model).items()}
        zero(model, smallest(weights, self.sparsity))
        return recover(model, data, self.bn_passes)
