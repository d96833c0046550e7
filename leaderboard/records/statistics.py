"""How sure a number is: intervals of 95 % and tests, all deterministic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, false_discovery_control, norm

from leaderboard.records.results import Correct

LEVEL = 0.95
SIGNIFICANT = 0.05  # is an adjusted p below this
RESAMPLES = 10_000
BLOCK = 100  # resamples drawn at a time: what bounds the memory
SEED = 20_240  # of every bootstrap, so that the same results give the same bytes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(correct: float, images: int) -> Estimate:
    """Return the accuracy with its Wilson score interval; `correct` may be a mean over
    seeds (Wilson 1927).
    """
    z = float(norm.ppf((1 + LEVEL) / 2))
    share = correct / images
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    low, high = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    return Estimate(share, min(low, share), max(high, share))  # where all are right, not 1 - 1e-16


def paired_difference(correct: Correct, dense: Correct) -> Estimate:
    """Return accuracy minus dense accuracy with its paired bootstrap interval over
    images and, crossed, over seeds.

    correct: (seeds, images), dense: (seeds of dense, images). Images with the same
    differences in every seed are exchangeable,
    so resampling images is one multinomial draw over the distinct columns: exact, and
    cheap for any number of images.
    """
    differences = correct.astype(np.float64) - dense.mean(axis=0)
    seeds, images = differences.shape
    columns, counts = np.unique(differences, axis=1, return_counts=True)
    generator = np.random.default_rng(SEED)
    # (resamples, columns)
    drawn_images = generator.multinomial(images, counts / images, size=RESAMPLES) / images
    # (resamples, seeds)
    drawn_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
    resampled = ((drawn_images @ columns.T) * drawn_seeds).sum(axis=1)
    return percentiles(float(differences.mean()), resampled)


def sign_flip_p(correct: Correct, dense: Correct) -> float:
    """Return the exact two-sided p of no difference from dense, by flipping the sign of
    each image's difference.

    correct: (seeds, images), dense: (seeds of dense, images). An image's seeds flip
    together: images are the sample. With d_i the
    integer difference of image i, sum(+-d_i) = 2 sum(v k_v) - sum|d_i|, k_v ~
    Binomial(#{|d_i| = v}, 1/2); one seed is McNemar's exact test.
    """
    differences = len(dense) * correct.sum(axis=0, dtype=np.int64) - len(correct) * dense.sum(
        axis=0, dtype=np.int64
    )
    sizes = np.abs(differences)
    distribution = np.ones(1)
    for size in np.unique(sizes[sizes > 0]):
        count = int((sizes == size).sum())
        spread = np.zeros(size * count + 1)
        spread[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = np.convolve(distribution, spread)
    sums = 2 * np.arange(len(distribution)) - sizes.sum()
    return min(1.0, float(distribution[np.abs(sums) >= abs(differences.sum())].sum()))


def adjust(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p values adjusted for the false discovery rate over all of them
    (Benjamini and Hochberg 1995).
    """
    if not p_values:
        return ()
    return tuple(float(p) for p in false_discovery_control(np.asarray(p_values), method="bh"))


def stars(p: float | None) -> str:
    """Return the significance mark of an adjusted p."""
    if p is None:
        return ""
    return "*" * sum(p < bound for bound in (0.05, 0.01, 0.001))


def median(values: Floats) -> Estimate:
    """Return the median of (n,) values with its bootstrap interval.

    A resample's middle ranks are order statistics of n uniform draws: U_(k) ~ Beta(k, n
    - k + 1) and, given it,
    1 - U_(k+1) = (1 - U_(k)) V^(1/(n-k)); drawing these is the bootstrap without
    drawing n values.
    """
    ordered, n = np.sort(values), len(values)
    rank = (n + 1) // 2
    generator = np.random.default_rng(SEED)
    lower = generator.beta(rank, n - rank + 1, RESAMPLES)
    upper = lower if n % 2 else 1 - (1 - lower) * generator.random(RESAMPLES) ** (1 / (n - rank))
    pick = np.minimum((np.stack([lower, upper]) * n).astype(np.int64), n - 1)
    return percentiles(float(np.median(values)), ordered[pick].mean(axis=0))


def paired_ratios(dense: Floats, point: Floats) -> Floats:
    """Return the (n,) speed-ups of n rounds over the mean of the dense rounds just
    before and after; dense: (n + 1,) seconds.
    """
    ratios: Floats = (dense[:-1] + dense[1:]) / 2 / point
    return ratios


def noise_floor(controls: Sequence[Estimate]) -> float:
    """Return the largest |speed-up - 1| that the intervals of dense against itself
    reach.
    """
    return max(abs(end - 1) for control in controls for end in (control.low, control.high))


def is_tie(speedup: Estimate, floor: float) -> bool:
    """Say whether a speed-up cannot be told from 1: within the noise floor, or with 1
    in its interval.
    """
    return abs(speedup.value - 1) <= floor or speedup.low <= 1 <= speedup.high


def resampled_means(values: Floats, resamples: int) -> Floats:
    """Return the (resamples, columns) means of the (images, columns) `values` over
    images drawn with replacement, the same for all columns.
    """
    images = len(values)
    generator = np.random.default_rng(SEED)
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, BLOCK):
        drawn = generator.integers(images, size=(min(BLOCK, resamples - start), images))
        counts = np.stack([np.bincount(row, minlength=images) for row in drawn])
        means[start : start + BLOCK] = counts @ values / images
    return means


def percentiles(value: float, resampled: Floats) -> Estimate:
    """Return `value` with the interval that its (resamples,) bootstrap values span."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))
