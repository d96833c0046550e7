"""Points of one method, model and setting taken together over their seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from leaderboard.claims import claimed_ratio
from leaderboard.errors import one_line
from leaderboard.latency import LatencyRun, latency
from leaderboard.results import Correct, MethodResults, TrackResults
from leaderboard.rows import Costs, Measurement, Quality, Ratios, Row
from leaderboard.schema import DENSE, WEAKEST_FIRST, Measured, Unmeasured
from leaderboard.statistics import adjust, paired_difference, sign_flip_p, wilson


@dataclass(frozen=True)
class Reference:
    """Dense of one model."""

    correct: Correct
    costs: Costs


@dataclass(frozen=True)
class Group:
    """The points of one row."""

    results: MethodResults
    model: str
    setting: str
    points: list[Measured | Unmeasured] = field(default_factory=list)

    @property
    def measured(self) -> list[Measured]:
        """Return the seeds that have numbers."""
        return [point for point in self.points if isinstance(point, Measured)]

    def correct(self) -> Correct:
        """Return which test images were right, (seeds, images)."""
        return np.stack([self.results.correct[point.id] for point in self.measured])


def setting_text(setting: Mapping[str, object]) -> str:
    """Return a setting as `k=v` text."""
    return one_line(", ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in setting.items()))


def make_rows(track: TrackResults, run: LatencyRun | None, order: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows of a track with the latency of one hardware: by model (dense first), method in `order`, setting as it stands."""
    groups = sorted(_groups(track), key=lambda group: _position(group, list(track.info.models), order))
    references = {group.model: Reference(group.correct(), _costs(group.measured)) for group in groups if _is_dense(group) and group.measured}
    return _adjusted(tuple(_row(group, references.get(group.model), run) for group in groups))


def _groups(track: TrackResults) -> list[Group]:
    groups: dict[tuple[str, str, str], Group] = {}
    for results in track.methods:
        for point in results.points:
            text = setting_text(point.setting)
            key = (results.method.name, point.model, text)
            groups.setdefault(key, Group(results, point.model, text)).points.append(point)
    return list(groups.values())


def _is_dense(group: Group) -> bool:
    return group.results.method.name == DENSE


def _position(group: Group, models: Sequence[str], order: Sequence[str]) -> tuple[int, str, bool, int, str, str, str]:
    """Return the sort key; methods that `order` lacks follow by needs, family and name. Sorting is stable, so settings stay in order."""
    method = group.results.method
    model = models.index(group.model) if group.model in models else len(models)
    known = order.index(method.name) if method.name in order else len(order)
    return model, group.model, not _is_dense(group), known, method.needs, method.family, method.name


def _row(group: Group, reference: Reference | None, run: LatencyRun | None) -> Row:
    measured = group.measured
    lost = [point for point in group.points if isinstance(point, Unmeasured)]
    status = f"{len(measured)} of {len(group.points)} seeds" if lost and measured else "ok" if measured else _worst(lost)
    reason = next((one_line(point.reason or "no reason given") for point in sorted(lost, key=lambda point: point.status)), "")
    claimed = claimed_ratio(group.points[0].setting)
    row = Row(group.results.method, group.model, group.setting, len(measured), status, reason, None, claimed, origin=_origin(group))
    return replace(row, measured=_measurement(row, group, reference, run)) if measured else row


def _origin(group: Group) -> str:
    """Return the weakest label of the row's points and the bundle they came from; nothing for our own."""
    origin = group.results.origin
    if origin is None:
        return ""
    labels = {origin.labels.get(point.id, "self-reported") for point in group.points}
    return f"{next(label for label in WEAKEST_FIRST if label in labels)}, bundle {origin.bundle[:12]}"


def _worst(lost: Sequence[Unmeasured]) -> str:
    return min(point.status for point in lost)  # failed before skipped


def _measurement(row: Row, group: Group, reference: Reference | None, run: LatencyRun | None) -> Measurement:
    costs = _costs(group.measured)
    ids = [point.id for point in group.measured]
    timed = {} if run is None or row.masked else {batch: latency(run, row.method.name, ids, batch) for batch in run.floors}
    found = {batch: value for batch, value in timed.items() if value is not None}
    reasons = [] if run is None or row.masked or found else [run.reasons.get((row.method.name, name), "") for name in ids]
    return Measurement(_quality(group, reference), costs, _ratios(reference, costs), found, next(filter(None, reasons), ""))


def _quality(group: Group, reference: Reference | None) -> Quality:
    correct = group.correct()
    per_seed = correct.mean(axis=1)
    std = float(per_seed.std(ddof=1)) if len(per_seed) > 1 else None
    accuracy = wilson(float(correct.sum(axis=1).mean()), correct.shape[1])
    if reference is None or _is_dense(group):
        return Quality(accuracy, std, None, None)
    return Quality(accuracy, std, paired_difference(correct, reference.correct), sign_flip_p(correct, reference.correct))


def _costs(points: Sequence[Measured]) -> Costs:
    model = [(p.bytes, p.parameters, p.macs, p.effective_macs, p.bit_operations) for p in points]
    spent = [(p.cost.seconds, p.cost.peak_mib, p.cost.images, p.cost.steps) for p in points]
    return Costs(*(float(mean) for mean in np.mean(np.hstack([model, spent]), axis=0)))


def _ratios(reference: Reference | None, costs: Costs) -> Ratios:
    if reference is None:
        return Ratios(None, None, None)
    dense = reference.costs
    return Ratios(_over(dense.bytes, costs.bytes), _over(dense.macs, costs.macs), _over(dense.bit_operations, costs.bit_operations))


def _over(dense: float, compressed: float) -> float | None:
    return dense / compressed if compressed else None


def _adjusted(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Return the rows with their p values adjusted over the whole table."""
    raw = [row.measured.quality.p for row in rows if row.measured is not None and row.measured.quality.p is not None]
    adjusted = iter(adjust(raw))
    return tuple(_with_p(row, next(adjusted)) if row.measured is not None and row.measured.quality.p is not None else row for row in rows)


def _with_p(row: Row, adjusted: float) -> Row:
    if row.measured is None:
        return row
    quality = replace(row.measured.quality, adjusted_p=adjusted)
    return replace(row, measured=replace(row.measured, quality=quality))
