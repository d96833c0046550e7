"""AFM: factorise layers by the principal components of their output features, each at
the rank that its influence on the predictions earns it.

Yu, Wu, "Compressing Transformers: Features Are Low-Rank, but Weights Are Not!", AAAI
2023; Yu, Fu, Ding, Zhou, Wu, "Unified Low-rank Compression Framework for Click-through
Rate Prediction", KDD 2024, arXiv 2405.18146.

AFM is Atomic Feature Mimicking. Outputs y of mean mu and covariance U diag(s) U^T are
projected onto their first r principal components:

    y ~= U_r U_r^T (y - mu) + mu

For a layer of weight W that is a layer of weight U_r^T W, then one of weight U_r. The
features of a convolution are counted per position of its map.

Each layer keeps at most 1/8, 2/8 ... or all of its weights. The error of a choice is
the share of the variance s that it drops, times the layer's sensitivity. The choices of
least total error within the budget are found exactly, by the dynamic program of
`methods.parts.allocation.allocate`; where sizes are too fine for its 100,000 buckets,
they are rounded up first.

A model whose lowest ranks keep more than the budget is skipped.

Arguments:
    rho: the share of the weights of all layers of
        `methods.parts.network.layers.prunable` together (Conv2d and Linear but stem,
        classifier and depth-wise convolutions) that may stay; never exceeded; 1 keeps
        the model
    statistics: whose features count: "parallel" takes those of the original model,
        "sequential" those that each layer has after all before it are replaced (the
        ranks are chosen on the original model in either case)

Assumed:
    - Ranks are searched in this way because the AAAI paper's own search was not at
      hand.
    - A layer's sensitivity is the KL of the predictions on 128 calibration images when
      it alone has its lowest rank, per share of variance that this drops.
    - Both biases are merged into one, on the second layer.
    - qkv stays fused: query, key and value are one layer, of one rank.
    - The statistics of batch norms, where there are any, are re-estimated at the end.
    - Deviation: the final fine-tuning is left out.
    - Deviation: the ReLU that the authors' demo has between the two layers is left out.

Checked against:
    - github.com/yuhao318/Atomic_Feature_Mimicking at 05d5bd4, `cal_save_uvb` and
      `step3` of afm_mlp.py, on all 48 layers of the trained ViT and mixer of digits at
      a third of full rank: outputs equal to 3e-7. They were given the sums of the
      outputs, because the file's own are lost in local variables that shadow them.
    - In the tests: brute force over all choices of ranks, which finds the same least
      error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.allocation.allocate import choose
from methods.parts.low_rank.factors import rank
from methods.parts.low_rank.features import Features, divergences, feature_pca, mimicking
from methods.parts.network.batchnorm import has_batchnorm, recalibrate
from methods.parts.network.layers import Layer, prunable
from methods.parts.network.walk import stages

EIGHTHS = tuple(k / 8 for k in range(1, 8))


def candidates(layer: Layer) -> list[int]:
    """Return the ranks that keep at most 1/8 ... 7/8 of the weights of `layer`,
    ascending, and 0 for the layer as it is.
    """
    m, n = layer.weight.flatten(1).shape
    return [*sorted({rank(m, n, ratio) for ratio in EIGHTHS} - {0}), 0]


def weights(layer: Layer, r: int) -> int:
    """Return how many weights `layer` has as a pair of rank `r`, or, for 0, as it
    is.
    """
    return r * sum(layer.weight.flatten(1).shape) if r else layer.weight.numel()


def dropped(s: Tensor, r: int) -> float:
    """Return the share of the variances `s` (O,), in descending order, that a rank `r`
    drops; 0 is the layer as it is.
    """
    return float(s[r:].sum() / s.sum()) if r and s.sum() > 0 else 0.0


def errors(
    model: nn.Module, layers: Mapping[str, Layer], features: Mapping[str, Features], images: Tensor
) -> dict[str, list[float]]:
    """Return the error of each candidate of each of `layers`: the share that it drops,
    times nats per share dropped by the lowest rank.
    """
    lowest = {name: candidates(layer)[0] for name, layer in layers.items()}
    moved = divergences(
        model,
        {name: mimicking(layers[name], features[name], r) for name, r in lowest.items() if r},
        images,
    )
    found = {}
    for name, layer in layers.items():
        shares = [dropped(features[name].s, r) for r in candidates(layer)]
        found[name] = [moved[name] * share / shares[0] if share else 0.0 for share in shares]
    return found


def replace_in_order(
    model: nn.Module, layers: Mapping[str, Layer], ranks: Mapping[str, int], images: Tensor
) -> None:
    """Replace those of `layers` that have `ranks`, in order of execution, each by the
    features that it has by then.
    """
    for stage in stages(model, layers, images):
        for name, layer in stage.layers.items():
            if name in ranks:
                features = feature_pca(stage.module, {name: layer}, stage.inputs)[name]
                model.set_submodule(name, mimicking(layer, features, ranks[name]))


@dataclass(frozen=True)
class AFM(Method):
    """Keep at most the share `rho` of the weights of all layers, divided by
    sensitivity.
    """

    rho: Annotated[float, Field(gt=0, le=1)] = 0.5
    statistics: Literal["parallel", "sequential"] = "parallel"

    family = "low-rank"
    paper = "Yu et al. 2024, arXiv 2405.18146"
    needs = "calibration"
    identity = {"rho": 1.0}
    strongest = {"rho": 0.15}

    def skip(self, model: nn.Module) -> str | None:
        layers = prunable(model).values()
        least = sum(min(weights(layer, r) for r in candidates(layer)) for layer in layers) / sum(
            layer.weight.numel() for layer in layers
        )
        return (
            f"the lowest ranks keep {least:.3f} of the weights, more than rho"
            if least > self.rho
            else None
        )

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Choose all ranks on the original model, replace the layers, then re-estimate
        the batch norms.
        """
        if self.rho == 1:
            return model
        images, layers = data.calibration, prunable(model)
        features = feature_pca(model, layers, images)
        ranks = self.ranks(layers, errors(model, layers, features, images))
        if self.statistics == "parallel":
            for name, r in ranks.items():
                model.set_submodule(name, mimicking(layers[name], features[name], r))
        else:
            replace_in_order(model, layers, ranks, images)
        if has_batchnorm(model):
            recalibrate(model, images)
        return model

    def ranks(
        self, layers: Mapping[str, Layer], found: Mapping[str, Sequence[float]]
    ) -> dict[str, int]:
        """Return the ranks of those of `layers` that are to be replaced, by the errors
        `found` of their candidates.
        """
        costs = [[weights(layer, r) for r in candidates(layer)] for layer in layers.values()]
        picks = choose(
            costs,
            [found[name] for name in layers],
            floor(self.rho * sum(layer.weight.numel() for layer in layers.values())),
        )
        ranks = {
            name: candidates(layer)[pick]
            for (name, layer), pick in zip(layers.items(), picks, strict=True)
        }
        return {name: r for name, r in ranks.items() if r}
