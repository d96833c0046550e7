"""The area under a method's front of accuracy against cost: one number for a whole
curve, never without its interval and its coverage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
import pandas as pd

from leaderboard.records.results import Correct
from leaderboard.records.schema import DENSE, MethodInfo
from leaderboard.records.statistics import Estimate, Floats, percentiles, resampled_means
from leaderboard.tables.precision import number
from leaderboard.tables.ranking.best import macs_gain, size_gain
from leaderboard.tables.ranking.savings import Saving
from leaderboard.tables.rows import Row, RowKey
from leaderboard.tables.table import Table

ENDS = {Saving.BYTES: 16.0, Saving.MACS: 4.0}  # ratios run from 1 to here
GAINS: dict[Saving, Callable[[Row], float | None]] = {
    Saving.BYTES: size_gain,
    Saving.MACS: macs_gain,
}
RESAMPLES = 1_000
COLUMNS = ("needs", "method", "cost", "area", "area_low", "area_high", "models", "models_of")


@dataclass(frozen=True)
class Curve:
    """One method on one model at one cost; the mean of `scores` (images,) over the test
    images is the area, not yet divided by dense's accuracy.
    """

    method: MethodInfo
    cost: Saving
    model: str
    scores: Floats


def areas_text(table: Table, hits: Mapping[RowKey, Correct]) -> str:
    """Return the areas of every method as CSV, by needs and cost, the largest first."""
    curves = find_curves(table.rows, hits, 1 / len(set(table.info.test_labels)))
    dense = {
        row.model: hits[row.key].mean(axis=0)
        for row in table.rows
        if row.method.name == DENSE and row.measured
    }
    records = [
        {
            "needs": members[0].method.needs,
            "method": members[0].method.name,
            "cost": members[0].cost.value,
            "area": number(area.value, 4),
            "area_low": number(area.low, 4),
            "area_high": number(area.high, 4),
            "models": len(members),
            "models_of": len(table.info.models),
        }
        for members, area in sorted(areas(curves, dense), key=_position)
    ]
    text: str = pd.DataFrame(records, columns=list(COLUMNS)).to_csv(
        index=False, lineterminator="\n"
    )
    return text


def front_shares(ratios: Sequence[float], accuracies: Sequence[float], end: float) -> Floats:
    """Return for each point the share of log2 x, x from 1 to `end`, on which it is the
    most accurate of all points with a ratio of at least x.

    f(x) = the largest accuracy at ratio >= x is a step function, so its mean over log2
    x is the sum of share * accuracy: exact. Where no point reaches x none has a share;
    the shares then sum to less than 1. A ratio of 1 or less has no share.
    """
    shares, covered = np.zeros(len(ratios)), 0.0
    for index in sorted(range(len(ratios)), key=lambda index: (-accuracies[index], -ratios[index])):
        reach = log2(min(max(ratios[index], 1.0), end)) / log2(end)
        shares[index] = max(0.0, reach - covered)
        covered = max(covered, reach)
    return shares


def find_curves(rows: Sequence[Row], hits: Mapping[RowKey, Correct], chance: float) -> list[Curve]:
    """Return the curves of every method but dense on the models that it handles, where
    dense was measured; `chance` is the accuracy of a guess.
    """
    handled: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if (
            row.method.name != DENSE
            and row.measured is not None
            and row.measured.ratios.compression is not None
        ):
            handled.setdefault((row.method.name, row.model), []).append(row)
    return [_curve(mine, cost, hits, chance) for mine in handled.values() for cost in ENDS]


def areas(
    curves: Sequence[Curve], dense: Mapping[str, Floats]
) -> list[tuple[list[Curve], Estimate]]:
    """Return the curves of each method and cost with their area over that of dense, the
    mean over models; dense: share of seeds right (images,).

    A share of nothing is none: curves on a model whose dense gets no image right are
    left out, and so are resamples in which a dense gets none right (a method that no
    resample is left for has no area). All rest on the same resamples. The rows of a
    front are chosen on all test images and kept in every resample: the interval is of
    these rows' accuracies, and that the most accurate of several equals was chosen by
    the test images flatters every method a little.
    """
    curves = [curve for curve in curves if dense[curve.model].any()]
    if not curves:
        return []
    columns = np.stack(
        [curve.scores for curve in curves] + [dense[curve.model] for curve in curves], axis=1
    )
    score, reference = np.split(
        np.vstack([columns.mean(axis=0), resampled_means(columns, RESAMPLES)]), 2, axis=1
    )
    together: dict[tuple[str, Saving], list[int]] = {}
    for index, curve in enumerate(curves):
        together.setdefault((curve.method.name, curve.cost), []).append(index)
    found = []
    for mine in together.values():
        defined = (reference[:, mine] > 0).all(axis=1)  # the first, of all test images, always is
        value, *resampled = (score[defined][:, mine] / reference[defined][:, mine]).mean(axis=1)
        if resampled:
            found.append(
                ([curves[index] for index in mine], percentiles(float(value), np.array(resampled)))
            )
    return found


def _curve(
    rows: Sequence[Row], cost: Saving, hits: Mapping[RowKey, Correct], chance: float
) -> Curve:
    per_image = [hits[row.key].mean(axis=0) for row in rows]
    shares = front_shares(
        [GAINS[cost](row) or 1.0 for row in rows],
        [float(right.mean()) for right in per_image],
        ENDS[cost],
    )
    scores = shares @ np.stack(per_image) + (1 - shares.sum()) * chance
    return Curve(rows[0].method, cost, rows[0].model, scores)


def _position(found: tuple[list[Curve], Estimate]) -> tuple[str, int, float, str]:
    (first, *_), area = found
    return first.method.needs, list(ENDS).index(first.cost), -area.value, first.method.name
