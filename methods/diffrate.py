"""DiffRate: learn by gradient descent how many tokens each block of a ViT drops and how
many it merges, under a budget of MACs, with the weights frozen.

Chen, Shao, Xu, Lin, Cheng, Luo, "DiffRate: Differentiable Compression Rate for
Efficient Vision Transformers", ICCV 2023, arXiv 2305.17997.

After the attention of every block but the first, tokens are ranked by the attention
that the class token pays them. The first Kp stay. Of these the last Kp - Km are merged,
each into the most similar of the first Km, by the cosine of their features. A merged
token is the plain mean of its parts. Attention from then on is proportional to the
sizes of tokens (log size is added to its logits), in which a token merged into another
counts by its cosine.

Each Kp and Km is the expectation of a learned distribution p over the number n of
patches kept, rounded up; the class token makes one more:

    K = ceil(sum n p_n) + 1,  p = softmax(w) over n = 1 ... patches

While w is trained all tokens stay: rank i is masked out of the attentions that follow,
by a 0/1 mask whose gradient goes straight through to the sum of p_n over n >= i. The
loss is

    cross-entropy + lam (MACs / dense's - macs)^2

Then the integers are fixed and tokens really go. No weight is tuned. Realisation:
structural, not dynamic, as every image costs the same work.

Arguments:
    macs: share of dense's multiply-accumulates that may remain at most; 1 keeps dense
    share: share of the track's fine-tuning epochs for which w is trained; 0 leaves the
        rates as they start, alike in all blocks
    learning_rate: peak learning rate for w, far above the paper's 0.01 because there
        are few steps
    lam: weight of the squared distance of the MACs from the budget, both as shares of
        dense; 0 trains on cross-entropy alone. It is 20 because there are few steps;
        the paper has 5 on squared G, which is 106 at DeiT-S's 4.6 G.

Assumed:
    - w is trained for `share` of the track's fine-tuning budget, by AdamW without
      weight decay. The paper trains for 3 epochs of ImageNet.
    - Because there are few steps, w = beta n at first, alike for all counts, with a
      beta that meets the budget. The paper starts at 0.
    - The candidates n are one token apart.
    - There is no drop-path but the model's.
    - To meet the budget as it is counted in the end, one number is added to all
      expected K before they are rounded up, as great as it may be.
    - Deviation: a negative cosine counts as 0 in sizes, which need a logarithm.

Checked against:
    - github.com/OpenGVLab/DiffRate at 91ae3e3, its DeiT patch on a trained ViT of the
      digits track and a random one of 197 tokens and 12 blocks: logits for fixed counts
      within 2e-6 where no cosine is negative.
    - The same in training: logits within 2e-6 and MACs equal. Gradients of w by
      cross-entropy and by MACs are within 1e-5 of the largest, but for one near-tie (by
      cross-entropy), where ours in float64 agrees.
    - In the tests: its released schedule costs 2.905 G, as its README says.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from methods import Data, Method
from methods.parts.tokens import (
    Reduction,
    Size,
    add_at,
    heads,
    joined,
    nearest,
    ones,
    proportional,
    reduce_tokens,
    take,
    token_count,
    unfit,
)
from methods.parts.training.losses import with_loss
from methods.parts.training.train import train


def ranking(importance: Tensor) -> Tensor:
    """Return the order (B, N) of tokens by `importance` (B, N), greatest first; the
    class token, 0, leads.
    """
    patches = importance[:, 1:].sort(dim=1, descending=True, stable=True).indices + 1
    return torch.cat([torch.zeros_like(patches[:, :1]), patches], 1)


def attention_logits(q: Tensor, k: Tensor, size: Size) -> Tensor:
    """Return q k^T / sqrt(d) + log size (B, H, Nq, N), for q (B, H, Nq, d)."""
    logits: Tensor = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    bias = proportional(size)
    return logits if bias is None else logits + bias


def drop_and_merge(
    x: Tensor, size: Size, q: Tensor, k: Tensor, Kp: int, Km: int
) -> tuple[Tensor, Size]:
    """Keep the Kp tokens of x (B, N, C) that the class token attends to most, and merge
    all but the first Km of them into the most similar of those.
    """
    P = attention_logits(q[:, :, :1], k, size).softmax(-1)  # of the class token
    order = ranking(P[:, :, 0].mean(1))[:, :Kp]
    x = take(x, order)
    size = None if size is None else take(size, order)
    if Km == Kp:
        return x, size
    return merge(x, ones(x) if size is None else size, Km)


def merge(x: Tensor, size: Tensor, Km: int) -> tuple[Tensor, Tensor]:
    """Merge all but the first Km tokens of x (B, Kp, C) into the most similar of those,
    j(i), which is no class token.
    """
    cosine, target = nearest(x[:, Km:], x[:, 1:Km])  # j(i) = target + 1
    parts = add_at(torch.ones_like(size[:, :Km]), target + 1, torch.ones_like(cosine))
    # x_j = mean of x_j and all its x_i; s_j = s_j + sum_i s_i max(cos_ij, 0)
    x = add_at(x[:, :Km], target + 1, x[:, Km:]) / parts[..., None]
    size = add_at(size[:, :Km], target + 1, size[:, Km:] * cosine.clamp(min=0))
    return x, size


def expected(w: Tensor) -> Tensor:
    """Return sum n p_n + 1 (...), the expected number of tokens kept, for w (...,
    patches).
    """
    n = torch.arange(1, w.shape[-1] + 1, device=w.device, dtype=w.dtype)
    return (w.softmax(-1) * n).sum(-1) + 1


def rounded_up(K: Tensor) -> Tensor:
    """Return ceil(K) with the gradient of K."""
    return K + (K.ceil() - K).detach()


def cost(K: Tensor, N: int, C: int, M: int) -> Tensor:
    """Return the MACs of all blocks for K (blocks - 1, 2), N tokens at first, C
    channels and M hidden units; both K of a block get the gradient of the less.
    """
    n = torch.full_like(K[0, 0], N)
    total = 4 * n * C**2 + 2 * n**2 * C + 2 * n * C * M  # attention and MLP of the first block
    for Kp, Km in K:
        left = Kp + Km + (torch.minimum(n, torch.minimum(Kp, Km)) - Kp - Km).detach()
        total, n = total + 4 * n * C**2 + 2 * n**2 * C + 2 * left * C * M, left
    return total


def start(budget: float, blocks: int, sizes: tuple[int, int, int]) -> Tensor:
    """Return w (blocks - 1, 2, patches) = beta n, alike for all, with the greatest beta
    (in 1/64) whose expected counts cost no more than `budget`.
    """
    n = torch.arange(1.0, sizes[0]).repeat(blocks - 1, 2, 1) / 64
    steps = range(-512, 512)  # 64 beta

    def too_much(step: int) -> bool:
        return float(cost(expected(n * step), *sizes)) > budget

    refused = bisect_left(steps, True, key=too_much)
    return n * (steps.start + refused - 1)


def keep_mask(w: Tensor, K: Tensor, last: Tensor) -> Tensor:
    """Return the mask (N,) that drops ranks K to `last`, straight through to the
    probability of keeping a rank, if it drops any.
    """
    tails = w.softmax(-1).flip(-1).cumsum(-1).flip(-1)  # sum of p_n over n >= i
    probability = pad(tails, (1, 0), value=1.0)  # the class token stays
    rank = torch.arange(len(probability), device=w.device)
    hard = ((rank < K) | (rank >= last)).to(w.dtype)
    soft = probability - probability.detach()  # 0, with the gradient of probability
    return hard + (last > K) * soft


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Return P_ij = exp(l_ij) G_ij / sum_j (B, H, N, N), G_ij = mask_j but 1 for i = j,
    for `mask` (B, N).
    """
    own = torch.eye(mask.shape[1], device=mask.device)
    G = mask[:, None, None] + (1 - mask[:, None, None]) * own
    P = (logits - logits.amax(-1, keepdim=True)).float().exp() * G
    return (P + 1e-6 / mask.shape[1]) / (P.sum(-1, keepdim=True) + 1e-6)


def soft_merge(x: Tensor, size: Tensor, K: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Merge ranks K to `last` of x (B, N, C) into the most similar of ranks 1 to K, but
    leave them where they are.
    """
    rank = torch.arange(x.shape[1], device=x.device)
    merges = ((rank >= K) & (rank < last)).to(x.dtype)  # 1 for each i that merges
    f = normalize(x.detach(), dim=-1)
    no_target = (rank < 1) | (rank >= K)
    cosine, target = (f @ f.transpose(1, 2)).masked_fill(no_target, -torch.inf).max(-1)
    size = torch.where(merges > 0, size * cosine, size).clamp(min=1)  # s_i cos_ij of those
    parts = add_at(torch.ones_like(size), target, merges.expand_as(size))
    # x_j = mean of x_j and all its x_i; s_j = s_j + sum_i s_i cos_ij
    x = add_at(x, target, x * merges[:, None]) / parts[..., None]
    size = add_at(size, target, size * merges)
    return x, size


def masked_attention(block: Any, x: Tensor, size: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the attention of `block` adds to x (B, N, C) where the tokens that
    `mask` (B, N) drops are seen by none but themselves, and its P (B, H, N, N).
    """
    q, k, v = heads(block.attn, block.norm1(x))
    P = masked_softmax(attention_logits(q, k, size), mask)
    return block.drop_path1(block.ls1(joined(block.attn, P.to(v.dtype) @ v))), P


class SoftBlocks(nn.Sequential):
    """The blocks of a ViT with trainable rates: `w` (blocks - 1, 2, patches) holds the
    logits of Kp and Km.
    """

    def __init__(self, blocks: Sequence[nn.Module], w: Tensor) -> None:
        super().__init__(*blocks)
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = cast(Any, self)
        size, mask = ones(x), ones(x)
        last = torch.full_like(self.w[0, 0, 0], x.shape[1])  # ranks from it on are gone
        x = first(x)
        K = rounded_up(expected(self.w)).detach()
        for block, w, (Kp, Km) in zip(others, self.w, K, strict=True):
            y, P = masked_attention(block, x, size, mask)
            x = x + y
            order = ranking(P[:, :, 0].mean(1))
            x, size, mask = take(x, order), take(size, order), take(mask, order)
            # drop: mask_i = 0 for Kp <= i < last
            mask = mask * keep_mask(w[0], Kp, last)
            last = torch.minimum(last, Kp)
            # merge, then drop: mask_i = 0 for Km <= i < last
            x, size = soft_merge(x, size, Km, last)
            mask = mask * keep_mask(w[1], Km, last)
            last = torch.minimum(last, Km)
            x = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
        return x


class Budgeted(nn.Module):
    """A ViT with SoftBlocks, whose loss is that of its logits + lam (MACs of its blocks
    - budget)^2.
    """

    def __init__(self, vit: Any, sizes: tuple[int, int, int], budget: float, lam: float) -> None:
        super().__init__()
        self.vit, self.sizes, self.budget, self.lam = vit, sizes, budget, lam

    def forward(self, images: Tensor) -> Tensor:
        over = cost(rounded_up(expected(self.vit.blocks.w)), *self.sizes) - self.budget
        return with_loss(self.vit(images), self.lam * over**2)


def growth(K: Sequence[float], N: int) -> list[int]:
    """Return which of K = (Kp, Km, Kp, ...) grows next, from 2 to N tokens, while a
    number added before rounding up rises; none outgrows those before it.
    """
    additions = sorted(
        (n - least, which)  # by which K_which gets n + 1 tokens
        for which, least in enumerate(accumulate(K, min))
        for n in range(2, N)
    )
    return [which for _, which in additions]


def realise(model: nn.Module, blocks: Sequence[nn.Module], counts: Sequence[int]) -> nn.Module:
    """Let all `blocks` but the first drop and merge down to `counts`, Kp and Km of
    each, where that takes any token away.
    """
    before = [token_count(model), *counts[1::2]]
    reductions: list[Reduction | None] = [
        partial(drop_and_merge, Kp=Kp, Km=Km) if Km < N else None
        for N, Kp, Km in zip(before, counts[::2], counts[1::2], strict=False)
    ]
    return reduce_tokens(model, blocks, [None, *reductions])


@dataclass(frozen=True)
class DiffRate(Method):
    """Train the rates for `share` of the budget, then have blocks drop and merge tokens
    until `macs` of the multiply-accumulates remain.
    """

    macs: Annotated[float, Field(gt=0, le=1)] = 0.7
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    learning_rate: Annotated[float, Field(gt=0)] = 0.3
    lam: Annotated[float, Field(ge=0)] = 20.0

    family = "tokens"
    paper = "Chen et al. 2023, arXiv 2305.17997"
    needs = "fine-tune"
    stochastic = True
    identity = {"macs": 1.0}
    strongest = {"macs": 0.4}

    def skip(self, model: nn.Module) -> str | None:
        return unfit(model)

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.macs == 1:
            return model
        blocks = list(cast(nn.Sequential, model.blocks))
        dense = data.macs(model)
        steps = growth(self.learned(model, blocks, dense, data), token_count(model))

        def after(count: int) -> nn.Module:
            """Return the model with the first `count` of the steps done."""
            done = steps[:count]
            counts = [2 + done.count(which) for which in range(2 * len(blocks) - 2)]
            return realise(model, blocks, counts)

        def too_much(count: int) -> bool:
            return data.macs(after(count)) > self.macs * dense

        refused = bisect_left(range(len(steps) + 1), True, key=too_much)
        if refused == 0:
            raise ValueError(
                f"macs {self.macs} is out of reach: the first block and the attention of the "
                "second keep all tokens; ask for more"
            )
        return after(refused - 1)

    def learned(self, model: Any, blocks: Sequence[Any], dense: int, data: Data) -> list[float]:
        """Return the expected counts, Kp and Km of each block but the first, after
        training their logits alone.
        """
        sizes = token_count(model), model.embed_dim, blocks[0].mlp.fc1.out_features
        all_kept = torch.full((len(blocks) - 1, 2), float(sizes[0]))
        budget = float(cost(all_kept, *sizes)) - (1 - self.macs) * dense  # of the blocks
        w = start(budget, len(blocks), sizes).to(model.pos_embed.device)
        model.requires_grad_(False)
        model.blocks = SoftBlocks(blocks, w)
        schedule = replace(
            data.fine_tune,
            optimiser="adamw",
            weight_decay=0.0,
            learning_rate=self.learning_rate,
            epochs=self.share * data.fine_tune.epochs,
        )
        train(Budgeted(model, sizes, budget, self.lam / dense**2), data, schedule)
        K: list[float] = expected(model.blocks.w).detach().flatten().tolist()
        model.requires_grad_(True)
        return K
