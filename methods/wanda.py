"""Wanda: zero, in each output row, the weights whose magnitude times input norm is
smallest.

Sun, Liu, Bair, Kolter, "A simple and effective pruning approach for large language
models", ICLR 2024, arXiv 2306.11695.

Metric_ij = |W_ij| * ||X_j||_2, the norm of input feature j over all calibration tokens;
the lowest floor(s n) of the n weights of each row are zeroed, uniformly over layers.

Arguments:
    sparsity: s, the share of each row that becomes zero
    bn_passes: passes over the calibration images by which the statistics of batch norms
        are re-estimated afterwards (a convention of this benchmark)

Assumed:
    - Block by block, as in the authors' language-model script: the inputs of a block
      come from the pruned blocks before it (their vision script uses dense inputs).
    - Convolutions, of which the paper has none: feature j is (channel, ky, kx) of the
      unfolded input, a row is a filter.
    - Calibration images are the track's, not augmented (the vision script draws 4,096
      augmented ones).

Checked against:
    - github.com/locuslab/wanda at 8e8fc87, `WrappedLayer` and `compute_mask` per row of
      its vision script on the inputs of every layer of a trained ViT of the digits
      track, at 50 and 77 %: masks equal.
    - In the tests: a worked example; exactly floor(s n) zeros in every row.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from methods import Data, Method
from methods.parts.network.gram import norms
from methods.parts.network.layers import prunable
from methods.parts.network.walk import stages
from methods.parts.pruning.masks import Passes, Sparsity, no_norms, recover, zero
from methods.parts.pruning.row_masks import wanda_mask


@dataclass(frozen=True)
class Wanda(Method):
    """Zero the `sparsity` of each row with the lowest weight times input norm."""

    sparsity: Sparsity = 0.5
    bn_passes: Passes = 1

    family = "pruning"
    paper = "Sun et al., ICLR 2024, arXiv 2306.11695"
    needs = "calibration"
    realisation = "masked"
    identity = {"sparsity": 0.0, "bn_passes": 0}
    strongest = {"sparsity": 0.99}

    def skip(self, model: nn.Module) -> str | None:
        return no_norms(model, self.bn_passes)

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        for stage in stages(model, prunable(model), data.calibration):
            norm = norms(stage.module, stage.layers, stage.inputs)
            masks = {
                name: wanda_mask(layer.weight.flatten(1), norm[name], self.sparsity)
                for name, layer in stage.layers.items()
            }
            zero(
                model,
                {name: mask.view_as(stage.layers[name].weight) for name, mask in masks.items()},
            )
        return recover(model, data, self.bn_passes)
