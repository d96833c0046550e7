"""Significance tiers: at each target the best row by accuracy, all that cannot be told
from it, and the best of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from leaderboard.records.results import Correct
from leaderboard.records.statistics import SIGNIFICANT, adjust, sign_flip_p
from leaderboard.tables.precision import number
from leaderboard.tables.ranking.best import macs_gain, size_gain, speed_gain
from leaderboard.tables.ranking.savings import Saving
from leaderboard.tables.rows import Row, RowKey
from leaderboard.tables.table import Table

# dense / compressed, at least
TARGETS = {
    Saving.BYTES: (2.0, 4.0, 8.0),
    Saving.MACS: (1.5, 2.0, 4.0),
    Saving.LATENCY: (1.25, 1.5, 2.0),
}
COLUMNS = (
    "model",
    "cost",
    "target",
    "tier",
    "method",
    "needs",
    "setting",
    "accuracy_percent",
    "ratio",
    "p_adjusted",
)
Gain = Callable[[Row], float | None]


@dataclass(frozen=True)
class Contender:
    """A measured row that reaches a target: its accuracy, its gain (dense / compressed)
    and its hits (seeds, images).
    """

    row: Row
    accuracy: float
    gain: float
    hits: Correct


@dataclass(frozen=True)
class Place:
    """A contender in a tier; `p` is that of the same accuracy as the tier's best, None
    for the best itself.
    """

    contender: Contender
    tier: int
    p: float | None


def tiers_text(table: Table, hits: Mapping[RowKey, Correct]) -> str:
    """Return the tiers of every model, cost and target as CSV; `table` is the one whose
    latency counts.
    """
    gains: dict[Saving, Gain] = {
        Saving.BYTES: size_gain,
        Saving.MACS: macs_gain,
        Saving.LATENCY: lambda row: speed_gain(row, table.batch),
    }
    records = [
        {"model": model, "cost": cost.value, "target": f"{target:g}"} | _cells(place)
        for model in dict.fromkeys(row.model for row in table.rows)
        for cost, targets in TARGETS.items()
        for target in targets
        for place in tiers(
            _contenders(
                [row for row in table.rows if row.model == model], gains[cost], target, hits
            )
        )
    ]
    text: str = pd.DataFrame(records, columns=list(COLUMNS)).to_csv(
        index=False, lineterminator="\n"
    )
    return text


def tiers(contenders: Sequence[Contender]) -> list[Place]:
    """Return the first tier and, of the methods that it lacks, the second; one place
    per method, best first.
    """
    first = _tier(1, contenders)
    placed = {place.contender.row.method.name for place in first}
    return first + _tier(
        2, [contender for contender in contenders if contender.row.method.name not in placed]
    )


def _contenders(
    rows: Sequence[Row], gain: Gain, target: float, hits: Mapping[RowKey, Correct]
) -> list[Contender]:
    gains = [(row, row.measured, gain(row)) for row in rows]
    found = [
        (row, measured.quality.accuracy.value, value)
        for row, measured, value in gains
        if measured is not None and value is not None
    ]
    return [
        Contender(row, accuracy, value, hits[row.key])
        for row, accuracy, value in found
        if value >= target
    ]


def _tier(tier: int, contenders: Sequence[Contender]) -> list[Place]:
    """Return the most accurate contender and each method's best that cannot be told
    from it; p is adjusted over all contenders.
    """
    if not contenders:
        return []
    best, *others = sorted(contenders, key=lambda contender: (-contender.accuracy, -contender.gain))
    p_values = adjust([sign_flip_p(other.hits, best.hits) for other in others])
    tied = [
        Place(other, tier, p) for other, p in zip(others, p_values, strict=True) if p >= SIGNIFICANT
    ]
    by_method: dict[str, Place] = {}
    for place in (Place(best, tier, None), *tied):
        by_method.setdefault(place.contender.row.method.name, place)
    return list(by_method.values())


def _cells(place: Place) -> dict[str, str]:
    row = place.contender.row
    cells = {
        "tier": str(place.tier),
        "method": row.method.name,
        "needs": row.method.needs,
        "setting": row.setting,
    }
    cells |= {
        "accuracy_percent": number(place.contender.accuracy, 4, 100.0),
        "ratio": number(place.contender.gain, 4),
    }
    return cells | {"p_adjusted": number(place.p, 6)}
