"""RSQ: rotate the features of a transformer so that none stands out, count important
tokens more in the second moments, then quantise as GPTQ does.

Sung, Yadav, Li, Yoon, Bansal, "RSQ: Learning from Important Tokens Leads to Better
Quantized LLMs", 2025, arXiv 2503.01820.

Rotate. LayerScale and the affine part of each LayerNorm go into the layer before or
after it. The LayerNorm's subtraction of the mean, M = I - 1 1^T / D, goes into all that
is added to the residual stream, whose width is D. An RMS norm without parameters is
left, and it commutes with every orthogonal matrix Q. The layers that write to the
stream, the tokens t added to it (class token, positions) and the layers that read from
it become

    writers W <- (M Q)^T W,  tokens t <- t M Q,  readers W <- W Q.

The outputs of the model stay as they were. Q is a Hadamard matrix of order D (12 * 2^k
or 2^k) with random signs, over sqrt(D); for any other D it is the orthogonal factor of
a Gaussian matrix.

Scale. w_t is the attention that token t gets, summed over heads and queries. In each
image the w_t are brought to [r_min, 1], and the result, divided by its mean, is r_t.
All layers of a block take their second moments from their N input rows as

    H = 2/N sum r_t x_t x_t^T.

Quantise. GPTQ rounds each layer with its H. Blocks are done in order, each layer on
inputs that come from everything before it already quantised. Batch norms, where a model
has them, are folded first.

Arguments:
    bits: width of the codes of all Conv2d and Linear except stem, classifier and
        depth-wise convolutions, which are rounded to nearest in 8 bits; 32 leaves the
        model as it is
    r_min: what the least important token of an image counts, as a share of what the
        most important one counts; 0 ignores it, 1 counts all alike, which is GPTQ on
        the rotated model
    percdamp: damping that is added to the diagonal of H, as a share of that diagonal's
        mean

Assumed:
    - Deviation: the grids are those of `gptq` and `rtn`, so that rotation and scaling
      are all that differs from those methods. The paper's grids are symmetric.
    - A model that is no ViT is not rotated. Norms and activations between its
      convolutions, and the token mixing of a mixer, do not commute with Q.
    - In a model that is no ViT, w_t is the norm of the block's input at position t (the
      paper's ActNorm). For a convolution it is averaged over windows, one for each
      position of the layer's output grid.
    - Layers that mix tokens (a mixer's mlp_tokens) see no single token and get r = 1.
    - Rotations while the model runs (online) and a larger calibration set are not
      offered.
    - H is factorised once, in float64, which needs no second try.

Checked against:
    - github.com/ylsung/rsq at 1a7cf31d, `OriginalAttentionWeighting` and
      `GPTQ.add_batch` on the attention and inputs of a trained ViT of the digits track:
      H of each block's fc1 equal to 3e-7, but for the factor that its H counts
      sequences and ours tokens.
    - In the tests: the logits of the rotated model, which are those of the original;
      worked tokens.
    - In the tests: r_min = 1 without rotation equals `gptq`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from timm.models.mlp_mixer import MixerBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from methods import Data, Method, store_as_codes
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.gram import moments
from methods.parts.network.layers import prunable, weighted
from methods.parts.network.walk import BATCH, Stage, stages
from methods.parts.quantization.gptq import gptq
from methods.parts.quantization.quantize import KEEP, round_to_nearest, rules
from methods.parts.quantization.rotation import rotatable, rotate, rotation


def attention(block: Block, x: Tensor) -> Tensor:
    """Return how much attention each token of x (N, T, D) gets (N, T), summed over
    heads and queries.
    """
    attn: Any = block.attn
    q, k, _ = attn.qkv(block.norm1(x)).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    logits = attn.q_norm(q) * attn.scale @ attn.k_norm(k).mT
    total: Tensor = logits.softmax(-1).sum((1, 2))
    return total


def scaled(w: Tensor, r_min: float) -> Tensor:
    """Return r (N, T): each row of `w` (N, T) brought to [r_min, 1] and divided by its
    mean; 1 where all are equal.
    """
    low, high = w.amin(1, keepdim=True), w.amax(1, keepdim=True)
    r = torch.where(high > low, (w - low) / (high - low) * (1 - r_min) + r_min, 1)
    return r / r.mean(1, keepdim=True)


@torch.no_grad()
def importance(stage: Stage, r_min: float) -> dict[str, Tensor]:
    """Return r of each input row of the layers of `stage`; the layers that are left out
    have rows that are no tokens.
    """
    if isinstance(stage.module, Block):
        w = torch.cat([attention(stage.module, x) for x in stage.inputs.split(BATCH)])
        return dict.fromkeys(stage.layers, scaled(w, r_min).flatten())
    if stage.inputs.ndim == 3:
        mixing = (
            set(stage.module.mlp_tokens.modules())
            if isinstance(stage.module, MixerBlock)
            else set()
        )
        r = scaled(stage.inputs.norm(dim=2), r_min).flatten()
        return {name: r for name, layer in stage.layers.items() if layer not in mixing}
    w = stage.inputs.norm(dim=1, keepdim=True)
    return {
        name: scaled(nn.functional.adaptive_avg_pool2d(w, grid).flatten(1), r_min).flatten()
        for name, grid in output_grids(stage).items()
    }


def output_grids(stage: Stage) -> dict[str, tuple[int, int]]:
    """Return height and width of what each convolution of `stage` puts out."""
    grids: dict[str, tuple[int, int]] = {}
    hooks = [
        layer.register_forward_hook(lambda _m, _x, y, name=name: grids.update({name: y.shape[2:]}))
        for name, layer in stage.layers.items()
    ]
    stage.module(stage.inputs[:1])
    for hook in hooks:
        hook.remove()
    return grids


@dataclass(frozen=True)
class RSQ(Method):
    """Rotate a ViT, let important tokens count more, and round the weights by GPTQ to
    grids of 2^`bits` points.
    """

    bits: Literal[2, 3, 4, 5, 6, 7, 8, 32] = 4
    r_min: Annotated[float, Field(ge=0, le=1)] = 0.005
    percdamp: Annotated[float, Field(gt=0, le=1)] = 0.01

    family = "quantization"
    paper = "Sung et al. 2025, arXiv 2503.01820"
    needs = "calibration"
    realisation = "packed"
    stochastic = True
    identity = {"bits": KEEP}
    strongest = {"bits": 2}

    def skip(self, model: nn.Module) -> str | None:
        blocked = isinstance(model, VisionTransformer) and not rotatable(model)
        return (
            (
                "a norm on the residual stream cannot be folded into the layer after it, so the "
                "model cannot be rotated"
            )
            if blocked
            else None
        )

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Rotate a ViT or fold the batch norms, round stem, classifier and depth-wise
        layers, then do the others one after another.
        """
        if self.bits == KEEP:
            return model
        images = data.calibration
        if isinstance(model, VisionTransformer):
            rotate(model, rotation(model.embed_dim, data.generator("rsq")).to(images.device))
        fold_batchnorms(model, images[:1])
        layers, inner, how = weighted(model), prunable(model), rules(model, self.bits)
        for name in layers.keys() - inner.keys():
            store_as_codes(
                layers[name], round_to_nearest(layers[name].weight.flatten(1), how[name])
            )
        for stage in stages(model, inner, images):
            r = importance(stage, self.r_min)
            for name, layer in stage.layers.items():
                H = moments(stage.module, {name: layer}, stage.inputs, r)[name]
                store_as_codes(layer, gptq(layer.weight.flatten(1), H, how[name], self.percdamp))
        return model
