"""Where a method is known to lose: to dense at its mildest setting, and to the controls
that any method must beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leaderboard.records.schema import DENSE
from leaderboard.tables.ranking.best import lossless
from leaderboard.tables.rows import Measurement, Row

CONTROLS = ("random_pruning", "slim", "finetune_only")
RULE = (
    "A method is listed as losing on a model where its mildest setting (the one that saves least, "
    "by the larger of the bytes and MACs ratios) is significantly below dense (adjusted p < "
    "0.05), and where one of the controls random_pruning, slim or finetune_only has no more "
    "bytes, no more MACs and more accuracy, by more than both 95 % intervals."
)


@dataclass(frozen=True)
class MildLoss:
    """The mildest setting of a method on a model, which is significantly below dense by
    `points`.
    """

    model: str
    setting: str
    points: float


@dataclass(frozen=True)
class ControlLoss:
    """A control that beats `rows` of a method's settings on a model, and the widest of
    these defeats in points.
    """

    model: str
    control: str
    needs: str
    rows: int
    setting: str
    points: float


def mild_losses(rows: Sequence[Row]) -> tuple[MildLoss, ...]:
    """Return the models on which the mildest of one method's rows is significantly
    below dense.
    """
    losses = []
    for model in dict.fromkeys(row.model for row in rows):
        measured = [
            row
            for row in rows
            if row.model == model
            and row.measured is not None
            and row.measured.quality.delta is not None
        ]
        row = min(measured, key=_saving, default=None)
        if (
            row is not None
            and row.measured is not None
            and row.measured.quality.delta is not None
            and not lossless(row)
        ):
            losses.append(MildLoss(model, row.setting, 100 * row.measured.quality.delta.value))
    return tuple(losses)


def control_losses(rows: Sequence[Row], table: Sequence[Row]) -> tuple[ControlLoss, ...]:
    """Return which controls of `table` beat rows of one method, per model and
    control.
    """
    if any(row.method.name in (*CONTROLS, DENSE) for row in rows):
        return ()
    losses = []
    for model in dict.fromkeys(row.model for row in rows):
        for control in CONTROLS:
            others = [row for row in table if row.model == model and row.method.name == control]
            beaten = {
                row.setting: margin
                for row in rows
                if row.model == model and (margin := _margin(row, others)) is not None
            }
            if beaten:
                worst = max(beaten, key=lambda setting: beaten[setting])
                losses.append(
                    ControlLoss(
                        model,
                        control,
                        others[0].method.needs,
                        len(beaten),
                        worst,
                        100 * beaten[worst],
                    )
                )
    return tuple(losses)


def _margin(row: Row, controls: Sequence[Row]) -> float | None:
    """Return by how much the best control that costs no more is above the row, or None
    if none is beyond both intervals.
    """
    mine = row.measured
    if mine is None:
        return None
    margins = [
        control.measured.quality.accuracy.value - mine.quality.accuracy.value
        for control in controls
        if control.measured and _beats(control.measured, mine)
    ]
    return max(margins, default=None)


def _beats(control: Measurement, mine: Measurement) -> bool:
    cheaper = control.costs.bytes <= mine.costs.bytes and control.costs.macs <= mine.costs.macs
    return cheaper and control.quality.accuracy.low > mine.quality.accuracy.high


def _saving(row: Row) -> float:
    ratios = row.measured.ratios if row.measured else None
    return max(ratios.compression or 0.0, ratios.theoretical_speedup or 0.0) if ratios else 0.0
