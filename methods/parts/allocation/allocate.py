"""One option for each layer, of least total error within a budget of total cost: the
dynamic program of allocators, exact over whole numbers.

D[l, j] = min over options v of D[l-1, j - e(l, v)] + size(l, v), as in L-GreCo
(Alimohammadi et al. 2024, arXiv 2210.17357).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np

BUCKETS = 100_000


def least(e: Sequence[Sequence[int]], size: Sequence[Sequence[float]], E: int) -> list[int]:
    """Return the option of each layer for the least sum of size[l][v] with e[l][v] >= 0
    adding up to at most E; ties go to the first option.
    """
    D, taken = np.zeros(E + 1), []
    for e_l, size_l in zip(e, size, strict=True):
        D_l, option = np.full(E + 1, np.inf), np.full(E + 1, -1)
        for v, (bucket, value) in enumerate(zip(e_l, size_l, strict=True)):
            found = D[: max(0, E + 1 - bucket)] + value
            better = found < D_l[bucket:]
            D_l[bucket:][better], option[bucket:][better] = found[better], v
        D = D_l
        taken.append(option)
    j = int(D.argmin())
    if D[j] == np.inf:
        raise ValueError(f"no choice of one option a layer costs at most {E}: raise the budget")
    chosen = []
    for e_l, option in zip(reversed(e), reversed(taken), strict=True):
        chosen.append(int(option[j]))
        j -= e_l[chosen[-1]]
    return chosen[::-1]


def buckets(cost: Sequence[Sequence[int]], limit: int) -> tuple[list[list[int]], int]:
    """Return what each option costs beyond its layer's cheapest, and what the limit
    leaves for that, in whole buckets; rounded against us.
    """
    extra, left = (
        [[c - min(options) for c in options] for options in cost],
        limit - sum(map(min, cost)),
    )
    if left < 0:
        raise ValueError(
            f"the cheapest options cost {limit - left}, {limit} allowed: raise the budget"
        )
    size = max(gcd(*(c for options in extra for c in options)), -(-left // BUCKETS), 1)
    return [[-(-c // size) for c in options] for options in extra], left // size


def choose(
    cost: Sequence[Sequence[int]], error: Sequence[Sequence[float]], limit: int
) -> list[int]:
    """Return the option of each layer for the least total `error` at a total `cost` of
    at most `limit`; raise ValueError if none fits.
    """
    sizes, left = buckets(cost, limit)
    return least(sizes, error, left)
