"""The best row of each budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from leaderboard.records.statistics import SIGNIFICANT
from leaderboard.tables.rows import Row

RULE = (
    "`best` marks, per model and needs class, the largest compression ratio (`size`) and the "
    "largest realised speed-up beyond the noise floor at the smallest batch (`speed`) among rows "
    "whose accuracy is not significantly below dense (adjusted p >= 0.05 or no loss) and whose "
    "ratio or speed-up exceeds 1; speed-ups within the noise floor of the largest share its mark"
)


def lossless(row: Row) -> bool:
    """Say whether a measured row's accuracy is not significantly below dense; dense
    itself is not compared.
    """
    if (
        row.measured is None
        or row.measured.quality.delta is None
        or row.measured.quality.adjusted_p is None
    ):
        return False
    return row.measured.quality.delta.value >= 0 or row.measured.quality.adjusted_p >= SIGNIFICANT


def size_gain(row: Row) -> float | None:
    """Return the compression ratio if the row is smaller than dense."""
    ratio = row.measured.ratios.compression if row.measured else None
    return ratio if ratio is not None and ratio > 1 else None


def macs_gain(row: Row) -> float | None:
    """Return the MACs ratio if the row needs fewer than dense."""
    ratio = row.measured.ratios.theoretical_speedup if row.measured else None
    return ratio if ratio is not None and ratio > 1 else None


def speed_gain(row: Row, batch: int) -> float | None:
    """Return the realised speed-up if the row is faster than dense beyond the noise
    floor.
    """
    timed = row.measured.latency.get(batch) if row.measured else None
    return (
        timed.speedup.value
        if timed is not None and not timed.tie and timed.speedup.value > 1
        else None
    )


def marked_best(rows: Sequence[Row], batch: int, floor: float) -> tuple[Row, ...]:
    """Return the rows with `best` filled by the rule above; `floor` is the noise floor
    at `batch`; equals share the mark.
    """
    size = _winners(rows, size_gain, 0.0)
    speed = _winners(rows, lambda row: speed_gain(row, batch), floor)
    marks = {"size": size, "speed": speed}
    return tuple(
        replace(row, best=tuple(name for name, winners in marks.items() if index in winners))
        for index, row in enumerate(rows)
    )


def _winners(rows: Sequence[Row], gain: Callable[[Row], float | None], noise: float) -> set[int]:
    gains: dict[tuple[str, str], dict[int, float]] = {}
    for index, row in enumerate(rows):
        value = gain(row)
        if value is not None and lossless(row):
            gains.setdefault((row.model, row.method.needs), {})[index] = value
    return {
        index
        for group in gains.values()
        for index, value in group.items()
        if value * (1 + noise) >= max(group.values())
    }
