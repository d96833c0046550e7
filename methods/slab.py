"""SLAB: turn LayerNorms into batch norms little by little while training, merge those
into the Linear behind, and make attention linear.

Guo, Chen, Tang, Wang, "SLAB: Efficient transformers with simplified linear attention
and progressive re-parameterized batch normalization", ICML 2024, arXiv 2405.11582.

A LayerNorm LN gives way to RepBN(x) = BN(x) + eta x. BN normalises each channel with
statistics over images and tokens; eta is one learned scalar. In training both are
mixed,

    PRepBN(x) = lambda LN(x) + (1 - lambda) RepBN(x)

and lambda falls linearly from 1 to 0 over the first `decay` of the steps.

Afterwards RepBN is an affine map per channel, with the running mean mu and standard
deviation sigma of BN, its scale gamma and its shift beta:

    x -> (gamma / sigma + eta) x + beta - gamma mu / sigma

This map is merged into the Linear behind it (qkv, fc1 or the head), so that no norm is
left to compute.

Simplified linear attention has no softmax. In each head q becomes relu(q) and k becomes
relu(k + pos), with a learned vector pos for every position, and

    out_i = q_i sum_j k_j^T v_j / (q_i sum_j k_j + 1e-6) + DWC(v)_i

DWC is a depth-wise 5 x 5 convolution on the grid of patches. The products are taken in
the cheaper order.

Arguments:
    norms: share of the LayerNorms, in blocks and in front of the head, that are
        replaced, the last ones first; where nothing at all is replaced, the model is
        dense, untouched
    attentions: share of the attention layers that are made linear, the last ones first;
        0 leaves attention as it is
    decay: share of the fine-tuning steps over which lambda falls to 0; near 0 the norms
        are replaced all at once

Assumed:
    - A trained model is converted and fine-tuned by the track's recipe. The paper
      trains from scratch for 300 epochs.
    - gamma, beta and eta start at the authors' 1, 0 and 1, not at the LayerNorm's
      values (tried: no better).
    - Attention is replaced at once. It keeps the trained projections, and DWC and pos
      start at 0, so that no weight is drawn at random.
    - A class token takes part in the attention; DWC leaves it out.
    - Products run in the recipe's precision, where the authors force float32.
    - BN's statistics are estimated anew on the calibration images before they are
      merged.
    - Where no single Linear reads the channels (the token MLP of a Mixer), the affine
      map stays, without a norm.

Checked against:
    - github.com/xinghaochen/SLAB at f58db00, side by side: its `LinearNorm` with
      `RepBN`, over 15 steps of training and in eval mode, within 1e-6.
    - Its `Attention` of slab_deit.py, outputs and gradients in both orders of its
      products: within 3e-7.
    - Its `merge_bn` of the Swin block: within 1e-7.
    - In the tests: oracles worked by hand.
    - In the tests: whole models before and after the merging.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Annotated, Any

import torch
from pydantic import Field
from timm.layers import Attention
from timm.models.mlp_mixer import Affine, MixerBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import pad

from methods import Data, Method
from methods.parts.depth.merge import affine, merge
from methods.parts.network.batchnorm import has_batchnorm, recalibrate
from methods.parts.training.train import train

Share = Annotated[float, Field(ge=0, le=1)]


class PRepBN(nn.Module):
    """LayerNorm on its way to RepBN: their mix by `lam` in training, RepBN alone in
    eval mode; x (B, N, C) or (B, C).
    """

    lam: Tensor

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        # 2d: what `recalibrate` knows
        self.norm, self.bn = (
            norm,
            nn.BatchNorm2d(norm.normalized_shape[0], device=norm.weight.device),
        )
        self.eta = nn.Parameter(norm.weight.new_ones(1))
        self.register_buffer("lam", norm.weight.new_ones(()))

    def forward(self, x: Tensor) -> Tensor:
        columns = x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2).unsqueeze(-1)  # (B, C, N, 1)
        rep: Tensor = self.bn(columns).squeeze(-1).transpose(1, 2).reshape(x.shape) + self.eta * x
        return self.lam * self.norm(x) + (1 - self.lam) * rep if self.training else rep

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return s and t (C,) of RepBN(x) = s x + t in eval mode, in float64."""
        bn = self.bn
        assert bn.running_mean is not None and bn.running_var is not None
        scale = bn.weight.detach().double() / torch.sqrt(bn.running_var.double() + bn.eps)
        return (
            scale + self.eta.detach().double(),
            bn.bias.detach().double() - scale * bn.running_mean.double(),
        )


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return q_i sum_j k_j^T v_j / (q_i sum_j k_j + 1e-6) for non-negative q, k (...,
    N, d) and v, multiplied in the cheaper order.
    """
    N, d = q.shape[-2:]
    numerator = q @ (k.transpose(-2, -1) @ v) if d < N else (q @ k.transpose(-2, -1)) @ v
    return numerator / (q @ k.sum(-2).unsqueeze(-1) + 1e-6)


class LinearAttention(nn.Module):
    """Simplified linear attention with the projections of `attn`, over tokens that are
    `prefix` others and a `grid` (h, w) of patches.
    """

    def __init__(self, attn: Any, prefix: int, grid: tuple[int, int]) -> None:
        super().__init__()
        weight, d = attn.qkv.weight, attn.head_dim
        self.heads, self.prefix, self.grid = attn.num_heads, prefix, grid
        self.qkv, self.proj, self.proj_drop = attn.qkv, attn.proj, attn.proj_drop
        self.pos = nn.Parameter(weight.new_zeros(1, prefix + grid[0] * grid[1], self.heads * d))
        self.dwc = nn.Conv2d(d, d, 5, padding=2, groups=d, device=weight.device)
        nn.init.zeros_(self.dwc.weight), nn.init.zeros_(self.dwc.bias)  # type: ignore[arg-type]

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        assert attn_mask is None and not is_causal  # what timm's blocks pass on
        B, N, _ = x.shape
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k, v = (
            y.reshape(B, N, self.heads, -1).transpose(1, 2)
            for y in (q.relu(), (k + self.pos).relu(), v)
        )
        out = linear_attention(q, k, v) + self.local(v)
        y: Tensor = self.proj_drop(self.proj(out.transpose(1, 2).reshape(B, N, -1)))
        return y

    def local(self, v: Tensor) -> Tensor:
        """Return DWC(v) of the patches of v (B, H, N, d) and 0 of the other tokens."""
        B, H, N, d = v.shape
        patches = v[:, :, self.prefix :].transpose(2, 3).reshape(B * H, d, *self.grid)
        return pad(
            self.dwc(patches).reshape(B, H, d, N - self.prefix).transpose(2, 3),
            (0, 0, self.prefix, 0),
        )


def linearised(model: Any, name: str) -> LinearAttention:
    """Return the attention layer `name` of a ViT as a linear one."""
    return LinearAttention(
        model.get_submodule(name), model.num_prefix_tokens, model.patch_embed.grid_size
    )


def plain(attn: Any) -> bool:
    """Say whether `attn` is timm's attention with nothing between its projections but
    the softmax.
    """
    return (
        isinstance(attn, Attention)
        and attn.gate is None
        and all(isinstance(n, nn.Identity) for n in (attn.q_norm, attn.k_norm, attn.norm))
    )


def readers(model: nn.Module) -> dict[str, str | None]:
    """Return the LayerNorms of blocks and in front of the head, first to last, with the
    Linear that alone reads their channels, if there is one.
    """
    found: dict[str, str | None] = {}
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, Block):
            found |= {
                f"{name}.norm1": f"{name}.attn.qkv" if plain(module.attn) else None,
                f"{name}.norm2": f"{name}.mlp.fc1",
            }
        elif isinstance(module, MixerBlock):
            found |= {f"{name}.norm1": None, f"{name}.norm2": f"{name}.mlp_channels.fc1"}
    linear = isinstance(modules.get("head"), nn.Linear)
    found |= {
        "norm": "head"
        if linear and getattr(model, "global_pool", "") in ("token", "avg")
        else None,
        "fc_norm": "head" if linear else None,
    }
    return {
        name: reader
        for name, reader in found.items()
        if isinstance(modules.get(name), nn.LayerNorm)
    }


@torch.no_grad()
def fold(model: nn.Module, name: str, reader: str | None) -> None:
    """Merge the PRepBN `name` into the Linear `reader`, W' = W diag(s), b' = b + W t;
    without one put s x + t in its place.
    """
    norm: Any = model.get_submodule(name)
    s, t = norm.affine()
    if reader is None:
        replacement: Any = Affine(len(s), device=s.device)
        replacement.alpha.copy_(s), replacement.beta.copy_(t)
    else:
        replacement, linear = nn.Identity(), model.get_submodule(reader)
        W, b = merge((s.diag(), t), affine(linear))  # type: ignore[arg-type]
        linear.weight, linear.bias = nn.Parameter(W.float()), nn.Parameter(b.float())
    model.set_submodule(name, replacement)


def last(names: list[str], share: float) -> list[str]:
    """Return the last round(share n) of n names."""
    return names[len(names) - round(share * len(names)) :]


def progress(norms: list[PRepBN], T: int) -> Callable[[float], None]:
    """Return what sets lambda of `norms` to (T - t) / T, at least 0, after step t = 1,
    2, ...
    """
    steps = count(1)

    def before_step(_rate: float) -> None:
        lam = max(0.0, (T - next(steps)) / T)
        for norm in norms:
            norm.lam.fill_(lam)

    return before_step


@dataclass(frozen=True)
class SLAB(Method):
    """Replace the shares `norms` of the LayerNorms and `attentions` of the attention
    layers, fine-tune, and merge the new norms away.
    """

    norms: Share = 1.0
    attentions: Share = 0.0
    decay: Annotated[float, Field(gt=0, le=1)] = 0.8

    family = "depth"
    paper = "Guo et al., ICML 2024, arXiv 2405.11582"
    needs = "fine-tune"
    stochastic = True
    identity = {"norms": 0.0, "attentions": 0.0}
    strongest = {"norms": 1.0, "attentions": 1.0}

    def skip(self, model: nn.Module) -> str | None:
        if not readers(model):
            return "no LayerNorm in front of a block's layers: batch norms fold away as it is"
        if self.attentions and not any(map(plain, model.modules())):
            return "no attention layer to make linear"
        return None

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        reader = readers(model)
        names = last(list(reader), self.norms)
        attentions = last(
            [name for name, module in model.named_modules() if plain(module)], self.attentions
        )
        if not names and not attentions:
            return model
        for name in attentions:
            model.set_submodule(name, linearised(model, name))
        norms = [PRepBN(model.get_submodule(name)) for name in names]  # type: ignore[arg-type]
        for name, norm in zip(names, norms, strict=True):
            model.set_submodule(name, norm)
        train(
            model,
            data,
            data.fine_tune,
            progress(norms, max(1, round(self.decay * data.steps(data.fine_tune)))),
        )
        if has_batchnorm(model):
            recalibrate(model, data.calibration)
        for name in names:
            fold(model, name, reader[name])
        return model
