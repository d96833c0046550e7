"""Which rows of a model no other row beats in accuracy and cost at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from leaderboard.tables.rows import Measurement, Row

CostOf = Callable[[Measurement], float | None]


def front(accuracy: Sequence[float], cost: Sequence[float], noise: float) -> tuple[bool, ...]:
    """Say of each (accuracy, cost) whether no other is at least as good in both and
    better in one; equals stay together.

    Costs whose ratio is within 1 + `noise` count as equal.
    """
    points, slack = list(zip(accuracy, cost, strict=True)), 1 + noise
    return tuple(
        not any(a >= mine and c <= own * slack and (a > mine or c * slack < own) for a, c in points)
        for mine, own in points
    )


def marked_pareto(rows: Sequence[Row], batch: int, floor: float) -> tuple[Row, ...]:
    """Return the rows with `pareto` filled, per model for bytes, MACs and the latency
    at `batch`, whose noise floor is `floor`.
    """
    axes: dict[str, tuple[CostOf, float]] = {
        "bytes": (_bytes, 0.0),
        "macs": (_macs, 0.0),
        "latency": (lambda found: _latency(found, batch), floor),
    }
    members = {name: _members(rows, cost, noise) for name, (cost, noise) in axes.items()}
    return tuple(
        replace(row, pareto=tuple(name for name in axes if index in members[name]))
        for index, row in enumerate(rows)
    )


def _members(rows: Sequence[Row], cost: CostOf, noise: float) -> set[int]:
    """Return the indices of the rows on their model's front; rows without that cost
    take no part.
    """
    known = {
        index: (row.model, row.measured.quality.accuracy.value, cost(row.measured))
        for index, row in enumerate(rows)
        if row.measured
    }
    found: set[int] = set()
    for model in dict.fromkeys(row.model for row in rows):
        part = [
            (index, accuracy, value)
            for index, (name, accuracy, value) in known.items()
            if name == model and value is not None
        ]
        kept = front([accuracy for _, accuracy, _ in part], [value for _, _, value in part], noise)
        found |= {index for (index, _, _), member in zip(part, kept, strict=True) if member}
    return found


def _bytes(measured: Measurement) -> float:
    return measured.costs.bytes


def _macs(measured: Measurement) -> float:
    return measured.costs.macs


def _latency(measured: Measurement, batch: int) -> float | None:
    """Return the time relative to dense of the same run; what cannot be told from dense
    counts as dense.
    """
    timed = measured.latency.get(batch)
    if timed is None:
        return None
    return 1.0 if timed.tie else 1 / timed.speedup.value
