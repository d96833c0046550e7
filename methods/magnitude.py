"""Global magnitude pruning: zero the smallest weights of all layers together.

Han, Pool, Tran, Dally, "Learning both weights and connections for efficient neural
networks", NeurIPS 2015, arXiv 1506.02626.

The score of a weight is |w|. All n prunable weights of the model (those of every layer
but stem, classifier and depth-wise convolutions) are ranked in one list, and exactly
the k = round(s n) lowest are zeroed: a layer of small weights loses more than others.
Ties are broken by position: the earlier weight goes. The weights are ranked as trained,
before any BatchNorm folding.

Arguments:
    sparsity: s, the share of all prunable weights together that becomes zero
    bn_passes: passes over the calibration images by which the statistics of batch norms
        are re-estimated afterwards (a convention of this benchmark); 0 leaves them

Assumed:
    - Deviation: pruning is one-shot, without the retraining of the paper.

Checked against:
    - A worked example.
    - torch.nn.utils.prune.global_unstructured: same masks.
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
