"""Vision transformers whose blocks hand on fewer tokens than they get: what methods
that merge and drop tokens share.

A reduction stands between the attention and the MLP of a block. It returns as many
tokens for every image, so that shapes are static but for the batch; which ones it
merges or drops is each image's own affair. Beside the tokens x (B, N, C) goes `size`
(B, N), how many of the first tokens each one stands for (None: one each), and attention
is proportional to it (Bolya et al. 2023): a key of size s counts as s keys, log s on
its logit. Token 0 is the class token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

Size = Tensor | None
# of x, size, and the queries and keys (B, H, N, d) of the block's attention
Reduction = Callable[[Tensor, Size, Tensor, Tensor], tuple[Tensor, Size]]


def unfit(model: nn.Module) -> str | None:
    """Say why the tokens of `model` cannot be reduced, or None if they can."""
    if not isinstance(model, VisionTransformer):
        return "not a vision transformer: it has no tokens that attend to each other"
    if model.global_pool != "token" or model.num_prefix_tokens != 1:
        return "its classifier does not read one class token"
    plain = all(
        type(block) is Block and type(block.attn) is Attention and block.attn.gate is None
        for block in model.blocks
    )
    return None if plain else "its blocks are not plain attention and MLP, one after the other"


def token_count(model: nn.Module) -> int:
    """Return N, the number of tokens of the ViT `model`, class token included."""
    return int(cast(Any, model).patch_embed.num_patches) + 1


def heads(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the queries, keys and values (B, H, N, d) of `attention` for x (B, N,
    C).
    """
    B, N, _ = x.shape
    q, k, v = (
        attention.qkv(x)
        .reshape(B, N, 3, attention.num_heads, attention.head_dim)
        .permute(2, 0, 3, 1, 4)
        .unbind()
    )
    return attention.q_norm(q), attention.k_norm(k), v


def joined(attention: Any, y: Tensor) -> Tensor:
    """Return the output (B, N, C) of `attention` for what its heads give, y (B, H, N,
    d).
    """
    result: Tensor = attention.proj_drop(
        attention.proj(attention.norm(y.transpose(1, 2).flatten(2)))
    )
    return result


def proportional(size: Size) -> Tensor | None:
    """Return log size (B, 1, 1, N), what proportional attention adds to the logits."""
    return None if size is None else size.log()[:, None, None]


def take(x: Tensor, index: Tensor) -> Tensor:
    """Return x[b, index[b, i]] for x (B, N) or (B, N, C) and index (B, K)."""
    return x.gather(1, _like(index, x))


def add_at(x: Tensor, index: Tensor, y: Tensor) -> Tensor:
    """Return x (B, N) or (B, N, C) with y[b, i] added to its x[b, index[b, i]]; several
    y may go to one place.
    """
    return x.scatter_add(1, _like(index, x), y)


def _like(index: Tensor, x: Tensor) -> Tensor:
    return index if x.ndim == 2 else index[..., None].expand(-1, -1, x.shape[-1])


def nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each token of a (B, Na, C) its greatest cosine with one of b (B, Nb,
    C), and which that is; ties go to the first.
    """
    best, index = (normalize(a, dim=-1) @ normalize(b, dim=-1).transpose(1, 2)).max(-1)
    return best, index


class ReducingBlock(nn.Module):
    """A block of a ViT with a reduction between attention and MLP, or none."""

    def __init__(self, block: Block, reduction: Reduction | None) -> None:
        super().__init__()
        self.block, self.reduction = block, reduction

    def forward(self, x: Tensor, size: Size) -> tuple[Tensor, Size]:
        block = self.block
        q, k, v = heads(block.attn, block.norm1(x))
        y = scaled_dot_product_attention(q, k, v, attn_mask=proportional(size))
        x = x + block.drop_path1(block.ls1(joined(block.attn, y)))
        if self.reduction is not None:
            x, size = self.reduction(x, size, q, k)
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x)))), size


class ReducingBlocks(nn.Sequential):
    """Blocks that hand on tokens and their sizes; they take the place of `blocks` in
    timm's model.
    """

    def forward(self, x: Tensor) -> Tensor:
        size: Size = None
        for block in self:
            x, size = block(x, size)
        return x


def reduce_tokens(
    model: nn.Module, blocks: Sequence[nn.Module], reductions: Sequence[Reduction | None]
) -> nn.Module:
    """Give `model` its `blocks` with a reduction in each of them (None: none), in
    place, and return it.
    """
    reducing = [
        ReducingBlock(cast(Block, block), reduction)
        for block, reduction in zip(blocks, reductions, strict=True)
    ]
    model.blocks = ReducingBlocks(*reducing)
    return model


def ones(x: Tensor) -> Tensor:
    """Return the sizes (B, N) of tokens x (B, N, C) that stand for themselves alone."""
    return torch.ones_like(x[..., 0])
