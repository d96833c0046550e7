"""One table per track and hardware, and its CSV: every column in full at a fixed
precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from leaderboard.records.latency import Latency, LatencyRun
from leaderboard.records.results import TrackResults
from leaderboard.records.schema import TrackInfo
from leaderboard.records.statistics import Estimate, stars
from leaderboard.tables.aggregate import make_rows
from leaderboard.tables.precision import number
from leaderboard.tables.ranking.best import marked_best
from leaderboard.tables.ranking.pareto import marked_pareto
from leaderboard.tables.rows import Measurement, Row

Cells = dict[str, str]


@dataclass(frozen=True)
class Table:
    """The rows of a track with the latency of one hardware; `run` is None if that was
    not measured.
    """

    info: TrackInfo
    hardware: str
    run: LatencyRun | None
    batches: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def batch(self) -> int:
        """Return the batch size that is ranked: the smallest."""
        return self.batches[0]


def make_table(
    track: TrackResults,
    hardware: str,
    run: LatencyRun | None,
    batches: Sequence[int],
    order: Sequence[str],
) -> Table:
    """Return the finished table; `batches` are the columns shown where nothing was
    measured, `order` that of the methods.
    """
    sizes = tuple(sorted(run.floors if run is not None and run.floors else batches)) or (1,)
    rows = make_rows(track, run, order)
    floor = run.floors[sizes[0]] if run is not None and run.floors else 0.0
    return Table(
        track.info,
        hardware,
        run,
        sizes,
        marked_pareto(marked_best(rows, sizes[0], floor), sizes[0], floor),
    )


def csv_text(table: Table) -> str:
    """Return the table as CSV; the same results give the same bytes."""
    records = pd.DataFrame([record(table, row) for row in table.rows])
    shown = records if any(row.origin for row in table.rows) else records.drop(columns="origin")
    text: str = shown.to_csv(index=False, lineterminator="\n")
    return text


def verdict(row: Row, timed: Latency | None) -> str:
    """Return in one word what the clock says of a row."""
    if row.measured is None:
        return ""
    if timed is None:
        return "masked" if row.masked else "failed" if row.measured.unmeasured else "not measured"
    if timed.as_dense:
        return "as dense"
    if timed.tie:
        return "tie"
    return "faster" if timed.speedup.value > 1 else "slower"


def size_share(row: Row) -> float | None:
    """Return the compression ratio of the file as a share of what the setting
    promises.
    """
    ratio = row.measured.ratios.compression if row.measured else None
    return ratio / row.claimed if ratio is not None and row.claimed else None


def realised_share(row: Row, timed: Latency | None) -> float | None:
    """Return the realised speed-up as a share of the theoretical one."""
    theory = row.measured.ratios.theoretical_speedup if row.measured else None
    return timed.speedup.value / theory if timed is not None and theory else None


def record(table: Table, row: Row) -> Cells:
    """Return a row as CSV shows it, by column."""
    measured = row.measured
    fingerprint = table.run.machine.fingerprint if table.run is not None else ""
    cells = {
        "version": table.info.version,
        "track": table.info.track,
        "hardware": table.hardware,
        "fingerprint": fingerprint,
    }
    cells |= {
        "model": row.model,
        "method": row.method.name,
        "family": row.method.family,
        "setting": row.setting,
    }
    cells |= {
        "needs": row.method.needs,
        "realisation": row.method.realisation,
        "seeds": str(row.seeds),
    }
    cells["test_images"] = str(table.info.images.test)
    cells |= _quality(measured) | _costs(measured)
    cells |= {"claimed_ratio": number(row.claimed, 4), "size_of_claim": number(size_share(row), 4)}
    for batch in table.batches:
        cells |= _latency(row, batch)
    cells |= _spent(measured)
    cells["latency_reason"] = measured.unmeasured if measured else ""
    return cells | {
        "best": " ".join(row.best),
        "pareto": " ".join(row.pareto),
        "status": row.status,
        "reason": row.reason,
        "origin": row.origin,
    }


def _quality(measured: Measurement | None) -> Cells:
    quality = measured.quality if measured else None
    cells = _interval("accuracy_percent", quality.accuracy if quality else None, 100.0, 4)
    cells["seed_std_points"] = number(quality.seed_std if quality else None, 4, 100.0)
    cells |= _interval("delta_points", quality.delta if quality else None, 100.0, 4)
    cells["p_adjusted"] = number(quality.adjusted_p if quality else None, 6)
    return cells | {"significance": stars(quality.adjusted_p if quality else None)}


def _costs(measured: Measurement | None) -> Cells:
    costs, ratios = (measured.costs, measured.ratios) if measured else (None, None)
    return {
        "bytes": number(costs.bytes if costs else None, 0),
        "compression_ratio": number(ratios.compression if ratios else None, 4),
        "parameters": number(costs.parameters if costs else None, 0),
        "macs": number(costs.macs if costs else None, 0),
        "flops": number(costs.macs if costs else None, 0, 2.0),
        "theoretical_speedup": number(ratios.theoretical_speedup if ratios else None, 4),
        "effective_macs": number(costs.effective_macs if costs else None, 0),
        "bit_operations_ratio": number(ratios.bit_operations if ratios else None, 4),
    }


def _latency(row: Row, batch: int) -> Cells:
    timed = row.measured.latency.get(batch) if row.measured else None
    cells = _interval(f"p50_ms_b{batch}", timed.p50 if timed else None, 1000.0, 5)
    cells |= {
        f"{name}_ms_b{batch}": number(getattr(timed, name, None), 5, 1000.0)
        for name in ("p95", "p99")
    }
    cells |= _interval(f"speedup_b{batch}", timed.speedup if timed else None, 1.0, 4)
    cells[f"realised_of_theory_b{batch}"] = number(realised_share(row, timed), 4)
    cells |= {
        f"peak_mib_b{batch}": number(timed.peak_mib if timed else None, 2),
        f"agreement_percent_b{batch}": number(timed.agreement if timed else None, 2, 100.0),
    }
    return cells | {f"verdict_b{batch}": verdict(row, timed)}


def _spent(measured: Measurement | None) -> Cells:
    costs = measured.costs if measured else None
    return {
        "compress_seconds": number(costs.seconds if costs else None, 3),
        "peak_mib": number(costs.peak_mib if costs else None, 1),
        "images": number(costs.images if costs else None, 0),
        "steps": number(costs.steps if costs else None, 0),
    }


def _interval(name: str, estimate: Estimate | None, scale: float, digits: int) -> Cells:
    parts = (
        {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
        if estimate
        else {"": None, "_low": None, "_high": None}
    )
    return {f"{name}{part}": number(value, digits, scale) for part, value in parts.items()}
