"""Rotating the residual stream of a vision transformer: orthogonal matrices that spread
what stands out, and the folding that lets them pass through norms.

Ashkboos, Mohtashami, Croci, Li, Cameron, Jaggi, Alistarh, Hoefler, Hensman, QuaRot,
NeurIPS 2024, arXiv 2404.00456, for LayerNorms with their mean.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.linalg import circulant, hadamard
from timm.layers import LayerScale
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from methods.parts.network.layers import classifier


def hadamard12() -> Tensor:
    """Return the Hadamard matrix of order 12 by Paley's construction over the field of
    11 elements.
    """
    S = torch.ones(12, 12, dtype=torch.float64)
    S[1:, 0] = -1
    S[1:, 1:] = torch.tensor(
        circulant([0] + [1 if k in (1, 3, 4, 5, 9) else -1 for k in range(1, 11)])
    )
    return S.fill_diagonal_(1)


def rotation(D: int, generator: torch.Generator) -> Tensor:
    """Return an orthogonal (D, D) float64 matrix: Hadamard with random signs of its
    rows, else the Q of a Gaussian's QR.
    """
    H = {1: torch.ones(1, 1, dtype=torch.float64), 12: hadamard12()}.get(
        D // (D & -D) * (4 if D % 12 == 0 else 1)
    )
    if H is None:
        gaussian: Tensor = torch.linalg.qr(
            torch.randn(D, D, dtype=torch.float64, generator=generator)
        ).Q
        return gaussian
    signs = torch.randint(0, 2, (D, 1), generator=generator) * 2 - 1
    Q: Tensor = (
        signs * torch.kron(H, torch.tensor(hadamard(D // len(H)), dtype=torch.float64)) / D**0.5
    )
    return Q


def fold_scale(scale: nn.Module, writer: nn.Linear) -> nn.Module:
    """Move a LayerScale's gamma into the rows of the `writer` before it; return what
    takes its place.
    """
    if isinstance(scale, LayerScale):
        writer.weight.mul_(scale.gamma[:, None])
        if writer.bias is not None:
            writer.bias.mul_(scale.gamma)
    return nn.Identity()


def fold_norm(norm: nn.LayerNorm, reader: nn.Linear) -> nn.RMSNorm:
    """Move a LayerNorm's gamma and beta into the `reader` after it; return the norm
    that is left once inputs have mean 0.
    """
    if norm.bias is not None:
        bias = reader.weight @ norm.bias
        reader.bias = nn.Parameter(bias if reader.bias is None else reader.bias + bias)
    if norm.weight is not None:
        reader.weight.mul_(norm.weight)
    return nn.RMSNorm(norm.normalized_shape, norm.eps, elementwise_affine=False)


@torch.no_grad()
def rotate(model: VisionTransformer, Q: Tensor) -> None:
    """Rotate the residual stream of `model` by Q (D, D), which changes none of its
    outputs.
    """
    writers: list[Any] = [model.patch_embed.proj]
    readers: list[Any] = [model.get_submodule(name) for name in classifier(model)]
    blocks: list[Any] = list(model.blocks)
    for block in blocks:
        block.ls1, block.ls2 = (
            fold_scale(block.ls1, block.attn.proj),
            fold_scale(block.ls2, block.mlp.fc2),
        )
        block.norm1, block.norm2 = (
            fold_norm(block.norm1, block.attn.qkv),
            fold_norm(block.norm2, block.mlp.fc1),
        )
        writers += [block.attn.proj, block.mlp.fc2]
        readers += [block.attn.qkv, block.mlp.fc1]
    last = "norm" if isinstance(model.norm, nn.LayerNorm) else "fc_norm"
    setattr(model, last, fold_norm(getattr(model, last), readers[0]))
    MQ = Q - Q.mean(0)
    tokens = [
        token for token in (model.cls_token, model.reg_token, model.pos_embed) if token is not None
    ]
    for written in tokens + [writer.bias for writer in writers if writer.bias is not None]:
        written.copy_(written.double() @ MQ)
    for writer in writers:
        writer.weight.copy_((MQ.T @ writer.weight.flatten(1).double()).view_as(writer.weight))
    for reader in readers:
        reader.weight.copy_(reader.weight.double() @ Q)


def rotatable(model: VisionTransformer) -> bool:
    """Say whether each norm on the residual stream is a LayerNorm right before a layer
    that it can be folded into.
    """
    before = [
        norm
        for block in model.blocks
        if isinstance(block, Block)
        for norm in (block.norm1, block.norm2)
    ]
    last = [norm for norm in (model.norm, model.fc_norm) if not isinstance(norm, nn.Identity)]
    others = (model.norm_pre, model.patch_embed.norm)
    plain = (
        all(isinstance(norm, nn.Identity) for norm in others)
        and model.attn_pool is None
        and len(classifier(model)) == 1
    )
    return (
        plain
        and len(before) == 2 * len(model.blocks)
        and len(last) == 1
        and all(isinstance(norm, nn.LayerNorm) for norm in before + last)
    )
