"""ToMe: between attention and MLP of every block, merge the r patch tokens that have
the most similar partners.

Bolya, Fu, Dai, Zhang, Feichtenhofer, Hoffman, "Token Merging: Your ViT But Faster",
ICLR 2023, arXiv 2210.09461.

Patches at even positions (set A; position 0 is the class token, which is never merged)
each find the most similar of those at odd positions (set B), by the cosine of their
keys averaged over heads; the r best pairs become one token each, the mean weighted by
how many patches its parts stand for. The new order is class token, what is left of A,
B. Attention is proportional to these sizes from then on: softmax(q k / sqrt(d) +
log size).

The weights stay as they are: no data, no training (the paper's training with merging
switched on is not offered). Realisation: structural, not dynamic: the inputs decide
which tokens merge, but every image costs the same work.

Arguments:
    r: patch tokens merged per block, on average; a block merges at most half of its
        patches
    inflect: bends r over the depth: 0 the same in every block, -1 from 2 r down to 0,
        1 from 0 up to 2 r

Assumed:
    - Keys are taken after their norm where an attention layer has one.
    - Of equally good pairs the first merge.
    - The cost of matching is counted.

Checked against:
    - github.com/facebookresearch/ToMe at af95e4b, its timm patch with proportional
      attention on a trained ViT of the digits track and a random one of 197 tokens and
      12 blocks, seven schedules each: logits within 3e-6.
    - Its matching with its weighted average: equal; its parse_r: equal schedules.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.tokens import (
    Reduction,
    Size,
    add_at,
    nearest,
    ones,
    reduce_tokens,
    take,
    token_count,
    unfit,
)


def schedule(tokens: int, blocks: int, r: int, inflect: float) -> list[int]:
    """Return how many of `tokens`, class token included, each of `blocks` merges: a
    line from r (1 - inflect) to r (1 + inflect), rounded down.
    """
    first = int(r * (1 - inflect))
    step = (2 * r - 2 * first) / max(blocks - 1, 1)
    merged: list[int] = []
    for number in range(blocks):
        merged.append(min(int(first + step * number), (tokens - 1) // 2))
        tokens -= merged[-1]
    return merged


def bipartite_matching(metric: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """Match `metric` (B, N, d): return who of A stays (B, |A| - r), who merges (B, r),
    and into whom of B (B, r); A is tokens 2, 4, ..., B 1, 3, ...
    """
    best, partner = nearest(metric[:, 2::2], metric[:, 1::2])
    order = best.sort(dim=1, descending=True, stable=True).indices
    return order[:, r:].sort(dim=1).values, order[:, :r], take(partner, order[:, :r])


def merge(x: Tensor, size: Size, q: Tensor, k: Tensor, r: int) -> tuple[Tensor, Size]:
    """Merge r of the tokens x (B, N, C) by their keys k (B, H, N, d): x_b = sum of size
    x / sum of size over b and what merges into it.
    """
    kept, merged, partner = bipartite_matching(k.mean(1), r)
    size = (ones(x) if size is None else size)[..., None]
    sums = torch.cat([x * size, size], -1)
    A, B = sums[:, 2::2], sums[:, 1::2]
    sums = torch.cat([sums[:, :1], take(A, kept), add_at(B, partner, take(A, merged))], 1)
    return sums[..., :-1] / sums[..., -1:], sums[..., -1]


@dataclass(frozen=True)
class ToMe(Method):
    """Merge `r` tokens per block on average, by a schedule that `inflect` bends; a
    block that merges none stays as it is.
    """

    r: Annotated[int, Field(ge=0)] = 2
    inflect: Annotated[float, Field(ge=-1, le=1)] = 0.0

    family = "tokens"
    paper = "Bolya et al. 2023, arXiv 2210.09461"
    needs = "data-free"
    identity = {"r": 0}
    strongest = {"r": 8}

    def skip(self, model: nn.Module) -> str | None:
        return unfit(model)

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        blocks = list(cast(nn.Sequential, model.blocks))
        counts = schedule(token_count(model), len(blocks), self.r, self.inflect)
        reductions: list[Reduction | None] = [partial(merge, r=r) if r else None for r in counts]
        return reduce_tokens(model, blocks, reductions)
