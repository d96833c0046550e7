"""The principal components of a layer's outputs, the pair of thinner layers that keeps
the first r of them, and what that does to the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.parts.low_rank.factors import pair
from methods.parts.network.layers import Layer
from methods.parts.training.losses import soft_loss

BATCH = 128
FEW = 128  # images that tell how far the predictions move


@dataclass(frozen=True, eq=False)
class Features:
    """The outputs y (O,) of a layer, all float64: their mean mu (O,) and their
    covariance U diag(s) U^T, the variances s (O,) in descending order.
    """

    mu: Tensor
    s: Tensor
    U: Tensor


def components(n: int, total: Tensor, squares: Tensor) -> Features:
    """Return what `n` outputs y vary in, from their sums of y (O,) and of y y^T (O, O)
    in float64.
    """
    mu = total / n
    s, U = torch.linalg.eigh(squares / n - mu.outer(mu))
    return Features(mu, s.flip(0).clamp(min=0), U.flip(1))


def feature_pca(
    module: nn.Module, layers: Mapping[str, Layer], inputs: Tensor
) -> dict[str, Features]:
    """Return the components of the outputs of `layers`, over tokens or positions of the
    map, when `module` runs on `inputs` (N, ...).
    """
    counts = dict.fromkeys(layers, 0)
    totals = {
        name: torch.zeros(len(layer.weight), dtype=torch.float64, device=layer.weight.device)
        for name, layer in layers.items()
    }
    squares = {name: total.outer(total) for name, total in totals.items()}

    def add(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def seen(layer: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> None:
            y = (
                (output.movedim(1, -1) if isinstance(layer, nn.Conv2d) else output)
                .flatten(0, -2)
                .double()
            )
            counts[name] += len(y)
            totals[name] += y.sum(0)
            squares[name] += y.T @ y

        return seen

    handles = [layer.register_forward_hook(add(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for batch in inputs.split(BATCH):
                module(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: components(counts[name], totals[name], squares[name]) for name in layers}


def mimic(W: Tensor, b: Tensor | None, features: Features, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return A (O, r), B (r, n) and c (O,) such that A (B x) + c = U_r U_r^T (y - mu) +
    mu for y = W x + b, in float64; r = 0 leaves mu.
    """
    U, mu = features.U[:, :r], features.mu
    centred = -mu if b is None else b.double() - mu
    return U, U.T @ W.double(), mu + U @ (U.T @ centred)


def mimicking(layer: Layer, features: Features, r: int) -> nn.Sequential:
    """Return the pair of rank `r` that mimics the outputs of `layer`, whose components
    are `features`.
    """
    W, b = layer.weight.detach().flatten(1), None if layer.bias is None else layer.bias.detach()
    A, B, c = (part.to(W.dtype) for part in mimic(W, b, features, r))
    return pair(layer, A, B, c)


@torch.no_grad()
def divergences(
    model: nn.Module, others: Mapping[str, nn.Module], images: Tensor
) -> dict[str, float]:
    """Return KL(p || q) in nats of the predictions p of `model` and q with one of its
    modules replaced by that of `others`.

    It is the mean over the first 128 of `images` (N, C, H, W).
    """
    few = images[:FEW]
    dense, found = model(few), {}
    for name, other in others.items():
        own = model.get_submodule(name)
        model.set_submodule(name, other)
        # rounding may bring it below 0
        found[name] = max(0.0, float(soft_loss(model(few), dense, 1.0)))
        model.set_submodule(name, own)
    return found
