"""What moved between two results of one track, and what cannot be told from noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leaderboard.records.latency import LatencyRun
from leaderboard.records.schema import Measured, TrackInfo
from leaderboard.records.statistics import (
    SIGNIFICANT,
    Estimate,
    adjust,
    paired_difference,
    sign_flip_p,
    wilson,
)
from leaderboard.tables.groups import Group
from leaderboard.tables.precision import accuracy_digits, number
from leaderboard.tables.rows import RowKey

PAIRED = (
    "Exact sign-flip test (McNemar for one seed) on the same test images, p adjusted "
    "(Benjamini-Hochberg) over the rows that differ at all; moved: p < 0.05"
)
INTERVALS = (
    "The test images differ, so nothing is paired; moved: the 95 % Wilson intervals are disjoint"
)
Pair = tuple[RowKey, Group, Group]  # a row that was measured on both sides


@dataclass(frozen=True)
class Snapshot:
    """One track as one side has it; latency runs by hardware."""

    info: TrackInfo
    groups: Mapping[RowKey, Group]
    runs: Mapping[str, Sequence[LatencyRun]]


@dataclass(frozen=True)
class Move:
    """A row that moved: before, after and by how much, as text; the larger |size| is,
    the further; its sign says which way.
    """

    key: RowKey
    before: str
    after: str
    change: str
    size: float


@dataclass(frozen=True)
class Finding:
    """What became of one quantity: rows that moved, the furthest first; how many others
    differ within noise; how that was told.
    """

    title: str
    directions: tuple[str, str]  # of a positive and of a negative size
    moves: tuple[Move, ...]
    within_noise: int
    compared: int
    how: str


def find_accuracy(a: Snapshot, b: Snapshot, pairs: Sequence[Pair]) -> Finding:
    """Return which accuracies moved: by the paired test on the same test images, else
    by disjoint intervals.
    """
    same_images = (a.info.content_hash, a.info.test_labels) == (
        b.info.content_hash,
        b.info.test_labels,
    )
    differing = [pair for pair in pairs if not _same_hits(pair)]
    find, how = (_paired, PAIRED) if same_images else (_by_intervals, INTERVALS)
    moves = find(differing, accuracy_digits(min(a.info.images.test, b.info.images.test)))
    return finding(
        "Accuracy, %", ("up", "down"), moves, len(differing) - len(moves), len(pairs), how
    )


def _same_hits(pair: Pair) -> bool:
    return np.array_equal(pair[1].correct(), pair[2].correct())


def _paired(pairs: Sequence[Pair], digits: int) -> list[Move]:
    p_values = adjust(
        [sign_flip_p(after.correct(), before.correct()) for _, before, after in pairs]
    )
    moves = []
    for (key, before, after), p in zip(pairs, p_values, strict=True):
        if p < SIGNIFICANT:
            change = paired_difference(after.correct(), before.correct())
            text = (
                f"{_signed(change.value, digits)} [{number(change.low, digits, 100)}, "
                f"{number(change.high, digits, 100)}]"
            )
            moves.append(
                Move(key, _percent(before, digits), _percent(after, digits), text, change.value)
            )
    return moves


def _by_intervals(pairs: Sequence[Pair], digits: int) -> list[Move]:
    moves = []
    for key, before, after in pairs:
        old, new = _accuracy(before), _accuracy(after)
        if disjoint(old, new):
            change = new.value - old.value
            moves.append(
                Move(
                    key,
                    _percent(before, digits),
                    _percent(after, digits),
                    _signed(change, digits),
                    change,
                )
            )
    return moves


def find_exact(title: str, pairs: Sequence[Pair], cost: Callable[[Measured], int]) -> Finding:
    """Return which bytes or MACs, means over seeds, moved at all."""
    costs = [(key, _mean(cost, before), _mean(cost, after)) for key, before, after in pairs]
    moves = [
        Move(key, f"{old:,.0f}", f"{new:,.0f}", as_share(relative(old, new)), relative(old, new))
        for key, old, new in costs
        if old != new
    ]
    return finding(title, ("more", "fewer"), moves, 0, len(pairs), "Exact; means over seeds")


def finding(
    title: str,
    directions: tuple[str, str],
    moves: Sequence[Move],
    within_noise: int,
    compared: int,
    how: str,
) -> Finding:
    """Return a finding whose moves are sorted, the furthest first."""
    return Finding(
        title,
        directions,
        tuple(sorted(moves, key=lambda move: -abs(move.size))),
        within_noise,
        compared,
        how,
    )


def _mean(cost: Callable[[Measured], int], group: Group) -> float:
    return float(np.mean([cost(point) for point in group.measured]))


def _accuracy(group: Group) -> Estimate:
    correct = group.correct()
    return wilson(float(correct.sum(axis=1).mean()), correct.shape[1])


def disjoint(old: Estimate, new: Estimate) -> bool:
    """Say whether two intervals have nothing in common."""
    return old.high < new.low or new.high < old.low


def relative(old: float, new: float) -> float:
    """Return by which share of `old` it became `new`."""
    return new / old - 1 if old else float("inf")


def as_share(size: float) -> str:
    """Return a share in percent, with its sign."""
    return f"{100 * size:+.2f} %"


def _percent(group: Group, digits: int) -> str:
    return number(_accuracy(group).value, digits, 100)


def _signed(change: float, digits: int) -> str:
    return ("+" if change > 0 else "") + number(change, digits, 100)
