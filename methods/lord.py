"""LoRD: factorise layers at one go, each projected onto the main directions of the
outputs that it has in the original model.

Kaushal, Vaidhya, Rish, LoRD: Low-Rank Decomposition of Monolingual Code LLMs for
One-Shot Compression, 2023, arXiv 2309.14021. The statistics of all layers come from one
pass of the original model: the covariance of the outputs y = W x + b, whose r first
eigenvectors V give W ~= V (V^T W), a layer of r outputs and one that brings them back.
Then all are replaced; nothing is trained. `rho` is the share of a layer's weights that
its pair keeps: r = floor(rho m n / (m + n)) for a matrix of m x n, at least 1, the same
for all types of layers. All Conv2d and Linear but stem, classifier and depth-wise
convolutions; a layer that would not get smaller stays, and at rho = 1 all do.
`tolerance` leaves alone each layer that, replaced on its own, moves the predictions by
more than so many nats (KL on 128 calibration images).

ASSUMED: outputs are centred and their mean kept in the second bias (never worse in mean
squared error); a convolution's outputs are counted per position of the map, and its
pair is kh x kw to r channels, then 1 x 1; qkv stays fused, with one rank for all three;
the tolerance is on the KL of single layers and infinite by default, where the paper
looks at perplexity over a grid of ranks; ranks are not rounded to multiples of 32; the
statistics of batch norms, where there are any, are re-estimated on the calibration
images.

Checked against: closed forms only, as no code was published: the mean squared error of
a layer's outputs is the sum of the dropped eigenvalues, and is never above that of the
truncated SVD of the same rank.
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
