"""Rows of a table from the points of a track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from leaderboard.records.latency import LatencyRun, latency
from leaderboard.records.results import Correct, TrackResults
from leaderboard.records.schema import DENSE, Measured, Spent
from leaderboard.records.statistics import adjust, paired_difference, sign_flip_p, wilson
from leaderboard.tables.groups import Group, find_groups
from leaderboard.tables.promised_size import claimed_ratio
from leaderboard.tables.rows import Costs, Measurement, Quality, Ratios, Row


@dataclass(frozen=True)
class Reference:
    """Dense of one model."""

    correct: Correct
    costs: Costs


def make_rows(track: TrackResults, run: LatencyRun | None, order: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows of a track with the latency of one hardware: by model (dense
    first), method in `order`, setting as it stands.
    """
    groups = sorted(
        find_groups(track), key=lambda group: _position(group, list(track.info.models), order)
    )
    references = {
        group.model: Reference(group.correct(), _costs(group.measured, group.results.spent))
        for group in groups
        if _is_dense(group) and group.measured
    }
    return _adjusted(tuple(_row(group, references.get(group.model), run) for group in groups))


def _is_dense(group: Group) -> bool:
    return group.results.method.name == DENSE


def _position(
    group: Group, models: Sequence[str], order: Sequence[str]
) -> tuple[int, str, bool, int, str, str, str]:
    """Return the sort key; methods that `order` lacks follow by needs, family and name.
    Sorting is stable, so settings stay in order.
    """
    method = group.results.method
    model = models.index(group.model) if group.model in models else len(models)
    known = order.index(method.name) if method.name in order else len(order)
    return model, group.model, not _is_dense(group), known, method.needs, method.family, method.name


def _row(group: Group, reference: Reference | None, run: LatencyRun | None) -> Row:
    claimed = claimed_ratio(group.points[0].setting)
    who = (
        group.results.method,
        group.model,
        group.setting,
        len(group.measured),
        group.status(),
        group.reason(),
    )
    row = Row(*who, None, claimed, origin=group.origin())
    return (
        replace(row, measured=_measurement(row, group, reference, run)) if group.measured else row
    )


def _measurement(
    row: Row, group: Group, reference: Reference | None, run: LatencyRun | None
) -> Measurement:
    costs = _costs(group.measured, group.results.spent)
    ids = [point.id for point in group.measured]
    timed = (
        {}
        if run is None or (row.masked and not run.machine.sparse)
        else {batch: latency(run, row.method.name, ids, batch) for batch in run.floors}
    )
    found = {batch: value for batch, value in timed.items() if value is not None}
    reasons = (
        []
        if run is None or row.masked or found
        else [run.reasons.get((row.method.name, name), "") for name in ids]
    )
    return Measurement(
        _quality(group, reference),
        costs,
        _ratios(reference, costs),
        found,
        next(filter(None, reasons), ""),
    )


def _quality(group: Group, reference: Reference | None) -> Quality:
    correct = group.correct()
    per_seed = correct.mean(axis=1)
    std = float(per_seed.std(ddof=1)) if len(per_seed) > 1 else None
    accuracy = wilson(float(correct.sum(axis=1).mean()), correct.shape[1])
    if reference is None or _is_dense(group):
        return Quality(accuracy, std, None, None)
    return Quality(
        accuracy,
        std,
        paired_difference(correct, reference.correct),
        sign_flip_p(correct, reference.correct),
    )


def _costs(points: Sequence[Measured], spent: Mapping[str, Spent]) -> Costs:
    """Return the means over the seeds of a row; what they took, over those of which it
    is known.
    """
    took = [spent[p.id] for p in points if p.id in spent]
    return Costs(
        bytes=fmean(p.bytes for p in points),
        parameters=fmean(p.parameters for p in points),
        macs=fmean(p.macs for p in points),
        effective_macs=fmean(p.effective_macs for p in points),
        bit_operations=fmean(p.bit_operations for p in points),
        images=fmean(p.work.images for p in points),
        steps=fmean(p.work.steps for p in points),
        seconds=fmean(one.seconds for one in took) if took else None,
        peak_mib=fmean(one.peak_mib for one in took) if took else None,
    )


def _ratios(reference: Reference | None, costs: Costs) -> Ratios:
    if reference is None:
        return Ratios(None, None, None)
    dense = reference.costs
    return Ratios(
        _over(dense.bytes, costs.bytes),
        _over(dense.macs, costs.macs),
        _over(dense.bit_operations, costs.bit_operations),
    )


def _over(dense: float, compressed: float) -> float | None:
    return dense / compressed if compressed else None


def _adjusted(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Return the rows with their p values adjusted over the whole table."""
    raw = [
        row.measured.quality.p
        for row in rows
        if row.measured is not None and row.measured.quality.p is not None
    ]
    adjusted = iter(adjust(raw))
    return tuple(
        _with_p(row, next(adjusted))
        if row.measured is not None and row.measured.quality.p is not None
        else row
        for row in rows
    )


def _with_p(row: Row, adjusted: float) -> Row:
    if row.measured is None:
        return row
    quality = replace(row.measured.quality, adjusted_p=adjusted)
    return replace(row, measured=replace(row.measured, quality=quality))
