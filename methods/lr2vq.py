"""LR2VQ: cut weights into pieces, write each piece in fewer dimensions than it has
entries, and let the pieces share a few points there.

Zhu, Zhou, Zhong, "Learning Low-Rank Representations for Model Compression", 2022, arXiv
2211.11397; pieces as in Martinez et al., "Permute, Quantize, and Fine-tune", CVPR 2021,
arXiv 2010.15703.

A layer's weight is cut into N pieces of m entries, W (N, m). For a 3 x 3 convolution a
piece is one kernel, m = 9; for a 1 x 1 convolution or a Linear it is 4 neighbouring
inputs, or the largest number below that divides theirs. The pieces are Z P, with Z (N,
d~) and a projection P (d~, m) of the layer.

Stage 1 starts at W's SVD, Z = U S, P = V^T, and trains Z and P. Stage 2 puts the rows
of Z into k clusters with centroids C (k, d~),

    W = C[a] P,

and trains C and P, with the codes a fixed.

The file holds the indices a, packed or Huffman-coded, and C and P in float16:

    N log2 k + 16 (k d~ + d~ m) bits

a layer, or fewer. Batch norms are folded first, as the file cannot hold a table and a
scale per channel.

Arguments:
    index_bits: log2 k where d~ = m, for all Conv2d and Linear but stem, classifier and
        depth-wise convolutions, which are rounded to 8 bits as in rtn; where d~ < m, k
        is what equal bits allow; 32 leaves the model as it is
    rank: d~ / m; 1 is plain product quantisation everywhere (P is multiplied out); null
        chooses d~ for each layer by its error before training
    share: share of the track's fine-tuning epochs that stage 1 takes, the rest being
        stage 2; 0 clusters the SVD as it is, 1 trains nothing after clustering
    learning_rate: learning rate of both stages; null takes the track's, at which plain
        SGD may diverge: a step of P changes every piece, by the square of Z

Assumed:
    - k <= N / 4, but at least 2.
    - What d~ < m saves buys clusters. Their number is the largest power of two, at most
      N / 4, that is stored no longer than the k centroids of m entries would be, so
      that all d~ compare at equal bits. At equal k none can beat d~ = m, since C P is
      itself a table of m columns.
    - Where no such table fits, a layer keeps d~ = m.
    - With `rank` null, a layer takes the d~ of least ||W - C[a] P||^2 before training,
      on W's SVD after a few of Lloyd's steps. This is a surrogate.
    - On the models of digits, null chooses d~ = m in every layer of m = 4 and nearly
      all of m = 9, which is plain product quantisation.
    - Each stage has its own warm-up and decay.
    - Biases, norms and tokens are trained along.
    - Codes stay fixed. Giving each piece, every epoch, the row of C P nearest to what
      it was after stage 1 lost 0.5 to 18 points on resnet in four runs of four (one
      seed).
    - Lloyd's steps start at random rows. A cluster without rows starts anew at the row
      of largest error.

Checked against:
    - scikit-learn's KMeans (Lloyd) from the same start: the same clusters, centroids to
      1e-4.
    - There is no reference code: the authors published none.
    - In the tests: three limiting cases (rank one, as many clusters as rows, all
      dimensions).
    - In the tests: bits and choices by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log2
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.network.layers import Layer
from methods.parts.quantization.codebook import prepare, share, store_table, unshare
from methods.parts.quantization.quantize import KEEP
from methods.parts.training.train import train

STEPS, TRIAL = 30, 8  # of Lloyd's: for what is kept, and for each d~ that is tried
CHUNK = 2**14  # pieces compared at a time


def size(layer: Layer) -> int:
    """Return m, the entries of a piece of the weight of `layer`: a kernel, or the most
    inputs, at most 4, that divide their number.
    """
    inputs, kernel = layer.weight.shape[1], layer.weight[0, 0].numel()
    return kernel if kernel > 1 else max(m for m in (1, 2, 3, 4) if inputs % m == 0)


def nearest(z: Tensor, C: Tensor) -> Tensor:
    """Return for each row of z (N, d) the row of C (k, d) that is nearest, (N,)."""
    half = C.square().sum(1) / 2
    return torch.cat([(half - part @ C.T).argmin(1) for part in z.split(CHUNK)])


def means(z: Tensor, a: Tensor, C: Tensor) -> Tensor:
    """Return the means (k, d) of the rows z (N, d) of each cluster a (N,); those
    without rows start anew at the rows farthest from their C.
    """
    count, order = torch.bincount(a, minlength=len(C)), a.argsort(stable=True)
    mean = torch.segment_reduce(z[order], "mean", lengths=count, axis=0, initial=0)
    empty = count == 0
    far = (z - C[a]).square().sum(1).topk(int(empty.sum())).indices
    return mean.masked_scatter(empty[:, None], z[far])


def kmeans(z: Tensor, k: int, steps: int, draw: torch.Generator) -> Tensor:
    """Return k <= N centroids (k, d) of the rows of z (N, d): Lloyd's steps from rows
    drawn at random.
    """
    C, last = z[torch.randperm(len(z), generator=draw)[:k].to(z.device)], z.new_empty(0)
    for _ in range(steps):
        a = nearest(z, C)
        if torch.equal(a, last):
            break
        C, last = means(z, a, C), a
    return C


def low_rank(W: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Return Z (N, d) and P (d, m), orthonormal rows, whose product is nearest to W (N,
    m).
    """
    U, S, Vt = torch.linalg.svd(W, full_matrices=False)
    return U[:, :d] * S[:d], Vt[:d]


def stored_bits(N: int, m: int, k: int, d: int) -> float:
    """Return the bits of N indices, of k centroids of d entries, and of the projection
    where d < m.
    """
    return N * log2(k) + 16 * (k * d + (d * m if d < m else 0))


def most(N: int, m: int, d: int, budget: float) -> int:
    """Return the largest power of two k <= N with which a table in d dimensions fits
    into `budget` bits, or 0.
    """
    return max(
        (2**b for b in range(1, 17) if 2**b <= N / 4 and stored_bits(N, m, 2**b, d) <= budget),
        default=0,
    )


def tables(N: int, m: int, b: int) -> list[tuple[int, int]]:
    """Return (k, d) for d = m, ..., 1: for m, 2^b, halved until at most N / 4, at least
    2; for the others the most that is stored no longer.
    """
    k = max(2, min(2**b, 2 ** int(log2(max(1, N / 4)))))
    found = [(most(N, m, d, stored_bits(N, m, k, m)), d) for d in range(m - 1, 0, -1)]
    return [(k, m)] + [(k, d) for k, d in found if k]


def error(W: Tensor, k: int, d: int, draw: torch.Generator) -> float:
    """Return ||W - C[a] P||^2 of pieces W (N, m) with k centroids in d dimensions."""
    Z, P = low_rank(W, d)
    C = kmeans(Z, k, TRIAL, draw)
    return (W - C[nearest(Z, C)] @ P).square().sum().item()


def cluster(layer: Layer, k: int, draw: torch.Generator) -> None:
    """Let the pieces Z P of `layer` share k rows C; P is made orthonormal again first,
    so that distances in Z are those of the pieces.
    """
    _, (Z, P) = unshare(layer)
    Z, P = low_rank(Z @ P, len(P))
    C = kmeans(Z, k, STEPS, draw)
    share(layer, nearest(Z, C), (C, P))


@dataclass(frozen=True)
class LR2VQ(Method):
    """Train the pieces of each layer as Z P, let them share a table no longer than
    2^`index_bits` pieces, and train that.
    """

    index_bits: Literal[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 32] = 8
    rank: Annotated[float, Field(gt=0, le=1)] | None = None
    share: Annotated[float, Field(ge=0, le=1)] = 0.25
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    family = "codebook"
    paper = "Zhu et al. 2022, arXiv 2211.11397"
    needs = "fine-tune"
    realisation = "packed"
    stochastic = True
    identity = {"index_bits": KEEP}
    strongest = {"index_bits": 1}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Fold the batch norms, train Z and P, cluster Z, train C and P, and store
        them.
        """
        if self.index_bits == KEEP:
            return model
        layers, trial, draw = (
            prepare(model, data.image_shape),
            data.generator("lr2vq trials"),
            data.generator("lr2vq"),
        )
        ks = [self.factorise(layer, trial) for layer in layers]
        recipe = replace(
            data.fine_tune, learning_rate=self.learning_rate or data.fine_tune.learning_rate
        )
        train(model, data, replace(recipe, epochs=self.share * recipe.epochs))
        for layer, k in zip(layers, ks, strict=True):
            cluster(layer, k, draw)
        train(model, data, replace(recipe, epochs=(1 - self.share) * recipe.epochs))
        for layer in layers:
            store_table(layer)
        return model

    def factorise(self, layer: Layer, draw: torch.Generator) -> int:
        """Let the weight of `layer` be Z P, with as many dimensions as are best, and
        return with how many clusters.
        """
        W = layer.weight.detach().view(-1, size(layer))
        N, m = W.shape
        choices = tables(N, m, self.index_bits)
        if self.rank is not None:
            wanted = max(1, round(self.rank * m))
            choices = [(k, d) for k, d in choices if d == wanted] or choices[:1]
        k, d = (
            min(choices, key=lambda choice: error(W, choice[0], choice[1], draw))
            if len(choices) > 1
            else choices[0]
        )
        share(layer, torch.arange(N, device=W.device), low_rank(W, d))
        return k
