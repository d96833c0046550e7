"""LoRD: factorise layers at one go, each projected onto the main directions of the
outputs that it has in the original model.

Kaushal, Vaidhya, Rish, "LoRD: Low-Rank Decomposition of Monolingual Code LLMs for
One-Shot Compression", 2023, arXiv 2309.14021.

One pass of the original model over the calibration images gives the covariance of every
layer's outputs y = W x + b. Its r first eigenvectors V give

    W ~= V (V^T W)

that is, a layer of r outputs and one that brings them back. Then all layers are
replaced; nothing is trained.

The rank of an m x n matrix follows from rho, the share of its weights that the pair
keeps, the same for all types of layers:

    r = floor(rho m n / (m + n)), at least 1

All Conv2d and Linear are factorised but stem, classifier and depth-wise convolutions. A
layer that would not get smaller stays.

Arguments:
    rho: the share of each layer's weights that its pair keeps; 1 keeps the model
    tolerance: nats by which a layer, replaced on its own, may move the predictions (KL
        on 128 calibration images); one that moves them by more is left alone; infinity
        replaces all

Assumed:
    - Outputs are centred and their mean is kept in the second bias, which is never
      worse in mean squared error.
    - A convolution's outputs are counted per position of the map. Its pair is kh x kw
      to r channels, then 1 x 1.
    - qkv stays fused, with one rank for all three.
    - The tolerance is on the KL of single layers and infinite by default; the paper
      looks at perplexity over a grid of ranks.
    - Ranks are not rounded to multiples of 32.
    - The statistics of batch norms, where there are any, are re-estimated on the
      calibration images.

Checked against:
    - Closed forms only, as no code was published: the mean squared error of a layer's
      outputs is the sum of the dropped eigenvalues.
    - The truncated SVD of the same rank: the mean squared error here is never above
      that of the SVD.
"""

from dataclasses import dataclass
from math import inf
from typing import Annotated

from pydantic import Field
from torch import nn

from methods import Data, Method
from methods.parts.low_rank.factors import rank
from methods.parts.low_rank.features import divergences, feature_pca, mimicking
from methods.parts.network.batchnorm import has_batchnorm, recalibrate
from methods.parts.network.layers import prunable


@dataclass(frozen=True)
class LoRD(Method):
    """Keep the share `rho` of the weights of each layer that may be replaced within
    `tolerance` nats.
    """

    rho: Annotated[float, Field(gt=0, le=1)] = 0.5
    tolerance: Annotated[float, Field(gt=0)] = inf

    family = "low-rank"
    paper = "Kaushal et al. 2023, arXiv 2309.14021"
    needs = "calibration"
    identity = {"rho": 1.0}
    strongest = {"rho": 0.01}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Gather all statistics, make all pairs, put those in that are tolerated, then
        re-estimate the batch norms.
        """
        if self.rho == 1:
            return model
        images, layers = data.calibration, prunable(model)
        features = feature_pca(model, layers, images)
        ranks = {
            name: rank(len(layer.weight), layer.weight[0].numel(), self.rho)
            for name, layer in layers.items()
        }
        pairs = {
            name: mimicking(layer, features[name], ranks[name])
            for name, layer in layers.items()
            if ranks[name]
        }
        moved = (
            divergences(model, pairs, images) if self.tolerance < inf else dict.fromkeys(pairs, 0.0)
        )
        for name, replacement in pairs.items():
            if moved[name] <= self.tolerance:
                model.set_submodule(name, replacement)
        if has_batchnorm(model):
            recalibrate(model, images)
        return model
