"""Deep Compression's weight sharing: the weights of a layer become 2^b shared values by
k-means, and the file holds their Huffman-coded indices.

Han, Mao, Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning,
Trained Quantization and Huffman Coding", ICLR 2016, arXiv 1510.00149.

In each layer, the non-zero weights are clustered by 1-D k-means. The centroids start
evenly spread between the smallest and the largest weight (the paper's best start).
Lloyd's steps end after 100, or once fewer than 1e-4 of the weights move; they work on
the sorted weights, with sums over ranges. A cluster without weights starts anew at the
weight of largest error.

If a layer has zeros, they keep one of the 2^b codes and stay exactly zero:
`magnitude__kmeans_huffman` is the paper's chain of pruning, sharing and coding.

Then the shared values are fine-tuned; the gradient of one is the sum of those of its
members.

The file holds indices, packed or Huffman-coded, whichever is shorter, and float16
centroids. The harness does this coding, not this method. Batch norms are folded first.

Arguments:
    index_bits: b, by which a layer shares at most 2^b values; for all Conv2d and Linear
        but stem, classifier and depth-wise convolutions, which are rounded to 8 bits as
        in rtn; 32 leaves the model as it is
    share: share of the track's fine-tuning epochs for which the shared values are
        trained; 0 leaves them as k-means found them
    learning_rate: learning rate of that training; null takes the track's. Under plain
        SGD a shared value moves by the gradients of all its members, so that the
        track's rate may be too high

Assumed:
    - b is the same for convolutions and Linear. The paper takes 8 and 5.
    - b is lowered in a layer until its table (16 2^b bits) is no longer than its
      indices (b a weight).
    - Zeros are coded as one symbol among the others, at least a bit each, instead of by
      gaps.
    - Biases, norms and tokens are trained along with the centroids.
    - Deviation: the learning rate is `learning_rate` or the track's, instead of 1e-4
      times the original one.

Checked against:
    - scikit-learn's KMeans (Lloyd) from the same linear start, 2 to 16 clusters of
      2,000 values: centroids within 2e-3, sums of squares to 2e-4 (the rest is what
      stopping at 1e-4 leaves).
    - The exact clustering by dynamic programming, which it never beats.
    - In the tests: a worked Huffman code of 13 bits.
    - In the tests: the file read back.
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
from methods.parts.quantization.codebook import prepare, share, store_table
from methods.parts.quantization.quantize import KEEP
from methods.parts.training.train import train

STEPS = 100  # of Lloyd's
MOVED = 1e-4  # share of weights that change clusters below which it ends


def refilled(x: Tensor, c: Tensor, count: Tensor) -> Tensor:
    """Return the centroids c (k,), ascending, those without members put on the members
    of `x` that are farthest from theirs.
    """
    empty = count == 0
    error = (x - c.repeat_interleave(count)).abs()
    return c.masked_scatter(empty, x[error.topk(int(empty.sum())).indices]).sort().values


def kmeans(w: Tensor, k: int) -> Tensor:
    """Return k <= n centroids (k,) of the values w (n,), ascending: Lloyd's steps from
    a linear start.
    """
    x = w.double().cpu().sort().values
    total, n = nn.functional.pad(x.cumsum(0), (1, 0)), len(x)
    c, last = torch.linspace(x[0].item(), x[-1].item(), k, dtype=x.dtype), torch.full((k - 1,), n)
    for _ in range(STEPS):
        cut = torch.searchsorted(x, (c[1:] + c[:-1]) / 2)  # where the next cluster begins
        moved = (cut - last).abs().sum()
        ends = torch.cat([cut.new_zeros(1), cut, cut.new_full((1,), n)])
        count, last = ends.diff(), cut
        c = refilled(x, torch.where(count > 0, total[ends].diff() / count, c), count)
        if moved < MOVED * n:
            break
    return c.to(w)


def clusters(n: int, b: int) -> int:
    """Return 2^b, halved until the table of n weights, 16 k bits, is no longer than
    their indices, n log2 k bits; at least 2.
    """
    k: int = 2**b
    while k > 2 and 16 * k > n * log2(k):
        k //= 2
    return k


def share_weights(layer: Layer, b: int) -> None:
    """Let the weights of `layer` share 2^b values at most, 0 among them if some are
    0.
    """
    w = layer.weight.detach().flatten()
    kept = w[w != 0] if w.any() else w[:1]
    zeros = int(len(kept) < len(w))
    c = kmeans(kept, min(clusters(len(w), b) - zeros, len(kept)))
    index = torch.searchsorted((c[1:] + c[:-1]) / 2, w) + zeros
    share(layer, torch.where(w == 0, 0, index) if zeros else index, [c[:, None]], zeros)


@dataclass(frozen=True)
class KMeansHuffman(Method):
    """Let the weights of a layer share 2^`index_bits` values and fine-tune those for
    `share` of the budget.
    """

    index_bits: Literal[1, 2, 3, 4, 5, 6, 7, 8, 32] = 4
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    family = "codebook"
    paper = "Han et al. 2016, arXiv 1510.00149"
    needs = "fine-tune"
    realisation = "packed"
    stochastic = True
    identity = {"index_bits": KEEP}
    strongest = {"index_bits": 1}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Fold the batch norms, share the weights of each layer, train the shared
        values, and store them.
        """
        if self.index_bits == KEEP:
            return model
        layers = prepare(model, data.image_shape)
        for layer in layers:
            share_weights(layer, self.index_bits)
        rate = self.learning_rate or data.fine_tune.learning_rate
        train(
            model,
            data,
            replace(data.fine_tune, epochs=self.share * data.fine_tune.epochs, learning_rate=rate),
        )
        for layer in layers:
            store_table(layer)
        return model
