"""A table as a page for people."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.records.latency import Latency
from leaderboard.records.statistics import Estimate, stars
from leaderboard.tables.caption import caption
from leaderboard.tables.github import escape, github_table
from leaderboard.tables.precision import accuracy_digits, number
from leaderboard.tables.rows import Measurement, Row
from leaderboard.tables.table import Cells, Table, realised_share, verdict

# ends of the names of columns that are left out where no row has a value
OPTIONAL = (" MiB", " same %", " of theory", "origin")
TEXT_COLUMNS = (
    "method",
    "family",
    "setting",
    "needs",
    "realisation",
    "best",
    "pareto",
    "origin",
    "status",
)


def markdown_text(table: Table) -> str:
    """Return the page: a caption, then one table per model with dense first."""
    models = dict.fromkeys(row.model for row in table.rows)
    sections = [
        _section(model, [_cells(table, row) for row in table.rows if row.model == model])
        for model in models
    ]
    plot = (
        [f"![theoretical and realised speed-up]({table.hardware}.svg)"]
        if table.run is not None and table.run.rounds
        else []
    )
    return "\n\n".join([caption(table), *plot, *sections]) + "\n"


def _section(model: str, records: Sequence[Cells]) -> str:
    shown = [
        name
        for name in records[0]
        if not name.endswith(OPTIONAL) or any(record[name] for record in records)
    ]
    rows = [{name: record[name] for name in shown} for record in records]
    return f"## {escape(model)}\n\n{github_table(rows, TEXT_COLUMNS)}"


def _cells(table: Table, row: Row) -> Cells:
    cells = {
        "method": row.method.name,
        "family": row.method.family,
        "setting": row.setting,
        "needs": row.method.needs,
    }
    cells = {
        name: escape(text)
        for name, text in (cells | {"realisation": row.method.realisation}).items()
    }
    cells |= _quality(row, accuracy_digits(table.info.images.test)) | _costs(
        row.measured, row.claimed
    )
    for batch in table.batches:
        cells |= _latency(row, batch)
    cells |= _spent(row.measured)
    unmeasured = (
        f"latency: {row.measured.unmeasured}" if row.measured and row.measured.unmeasured else ""
    )
    status = "; ".join(
        text
        for text in (f"{row.status}: {row.reason}" if row.reason else row.status, unmeasured)
        if text
    )
    return cells | {
        "best": " ".join(row.best),
        "pareto": " ".join(row.pareto),
        "origin": escape(row.origin),
        "status": escape(status),
    }


def _quality(row: Row, digits: int) -> Cells:
    if row.measured is None:
        return {"seeds": "", "accuracy %": "", "Δ points": ""}
    quality = row.measured.quality
    spread = f" ±{number(quality.seed_std, digits, 100)}" if quality.seed_std is not None else ""
    mark = stars(quality.adjusted_p).replace("*", "\\*")
    delta = f"{_with_interval(quality.delta, 100, digits)} {mark}".strip() if quality.delta else ""
    return {
        "seeds": f"{row.seeds}{spread}",
        "accuracy %": _with_interval(quality.accuracy, 100, digits),
        "Δ points": delta,
    }


def _costs(measured: Measurement | None, claimed: float | None) -> Cells:
    costs, ratios = (measured.costs, measured.ratios) if measured else (None, None)
    return {
        "KiB": number(costs.bytes if costs else None, 1, 1 / 1024),
        "size ×": number(ratios.compression if ratios else None, 2),
        "promised ×": number(claimed, 2),
        "parameters": number(costs.parameters if costs else None, 0),
        "MMACs": number(costs.macs if costs else None, 3, 1e-6),
        "MFLOPs": number(costs.macs if costs else None, 3, 2e-6),
        "theory ×": number(ratios.theoretical_speedup if ratios else None, 2),
        "effective MMACs": number(costs.effective_macs if costs else None, 3, 1e-6),
        "BOPs ×": number(ratios.bit_operations if ratios else None, 2),
    }


def _latency(row: Row, batch: int) -> Cells:
    timed = row.measured.latency.get(batch) if row.measured else None
    times = (
        " / ".join(f"{1000 * seconds:.3f}" for seconds in (timed.p50.value, timed.p95, timed.p99))
        if timed
        else ""
    )
    cells = {f"b{batch} p50 / p95 / p99 ms": times, f"b{batch} realised ×": _speedup(row, timed)}
    cells |= {
        f"b{batch} of theory": number(realised_share(row, timed), 2),
        f"b{batch} MiB": number(timed.peak_mib if timed else None, 1),
    }
    return cells | {f"b{batch} same %": number(timed.agreement if timed else None, 1, 100)}


def _speedup(row: Row, timed: Latency | None) -> str:
    word = verdict(row, timed)
    return (
        _with_interval(timed.speedup, 1, 2)
        if timed is not None and word in ("faster", "slower")
        else word
    )


def _spent(measured: Measurement | None) -> Cells:
    costs = measured.costs if measured else None
    return {
        "compress s": number(costs.seconds if costs else None, 2),
        "peak MiB": number(costs.peak_mib if costs else None, 0),
        "images": number(costs.images if costs else None, 0),
        "steps": number(costs.steps if costs else None, 0),
    }


def _with_interval(estimate: Estimate, scale: float, digits: int) -> str:
    low, high = number(estimate.low, digits, scale), number(estimate.high, digits, scale)
    return f"{number(estimate.value, digits, scale)} [{low}, {high}]"
