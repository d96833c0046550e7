"""Batch normalisation around compression: folding it away, and re-estimating its
statistics.
"""

from __future__ import annotations

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


@torch.no_grad()
def fold_batchnorms(model: nn.Module, probe: Tensor) -> nn.Module:
    """Fold each BatchNorm2d that directly follows a Conv2d into it (W' = s W, b' = s (b
    - mean) + beta, s = gamma / sqrt(var + eps)).

    `probe` (N, C, H, W) is run once to see which output feeds which norm; a convolution
    whose output also goes elsewhere keeps its norm. The activation inside timm's
    BatchNormAct2d stays. Changes `model` in place (which must be in eval mode) and
    returns it.
    """
    maker: dict[int, nn.Conv2d] = {}
    alive: list[Tensor] = []  # a freed tensor would pass its id on
    readers: dict[int, list[tuple[str, nn.Module]]] = {}
    names = {module: name for name, module in model.named_modules()}

    def seen(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if args and isinstance(args[0], Tensor):
            alive.append(args[0])
            readers.setdefault(id(args[0]), []).append((names[module], module))
        if isinstance(module, nn.Conv2d):
            maker[id(output)] = module
            alive.append(output)

    leaves = [
        module
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) or not list(module.children())
    ]
    handles = [module.register_forward_hook(seen) for module in leaves]
    try:
        model(probe)
    finally:
        for handle in handles:
            handle.remove()
    for key, conv in maker.items():
        following = readers.get(key, [])
        if len(following) == 1:
            name, norm = following[0]
            if isinstance(norm, nn.BatchNorm2d):
                _fold(model, conv, name, norm)
    return model


def _fold(model: nn.Module, conv: nn.Conv2d, name: str, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    conv.weight.add_(0.0)  # a pruned weight times a negative scale is -0.0; store it as 0.0
    model.set_submodule(name, norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())


def has_batchnorm(model: nn.Module) -> bool:
    """Say whether `model` has running statistics to re-estimate."""
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@torch.no_grad()
def recalibrate(model: nn.Module, images: Tensor) -> None:
    """Re-estimate the running statistics of every BatchNorm2d as the plain average over
    batches of 64 of `images` (N, C, H, W).
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    for batch in images.split(64):
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
