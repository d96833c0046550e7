"""What DVC shows of a track: a few numbers (`dvc metrics`) and the curves (`dvc
plots`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from leaderboard.records.schema import DENSE
from leaderboard.tables.precision import number
from leaderboard.tables.ranking.best import lossless, size_gain, speed_gain
from leaderboard.tables.rows import Row
from leaderboard.tables.table import Table

Numbers = dict[str, float | int]
CURVE_COLUMNS = (
    "track",
    "method",
    "model",
    "setting",
    "compression_ratio",
    "theoretical_speedup",
    "accuracy",
)


def metrics_text(tables: Sequence[Table]) -> str:
    """Return one track's numbers, flat, from its tables of one per hardware: what its
    rows are, noise floors, and per model dense and the best gains.
    """
    rows = tables[0].rows
    numbers = _counts(rows) | _dense(rows) | _gains(rows)
    for table in tables:
        numbers |= _noise(table) | _speeds(table)
    rounded = {
        name: value if isinstance(value, int) else round(value, 6)
        for name, value in numbers.items()
    }
    return json.dumps(dict(sorted(rounded.items())), indent=1) + "\n"


def curves_text(table: Table) -> str:
    """Return the measured rows of one of a track's tables as points of the curves, as
    CSV.
    """
    records = [
        {
            "track": table.info.track,
            "method": row.method.name,
            "model": row.model,
            "setting": row.setting,
            "compression_ratio": number(row.measured.ratios.compression, 4),
            "theoretical_speedup": number(row.measured.ratios.theoretical_speedup, 4),
            "accuracy": number(row.measured.quality.accuracy.value, 6),
        }
        for row in table.rows
        if row.measured is not None
    ]
    text: str = pd.DataFrame(records, columns=list(CURVE_COLUMNS)).to_csv(
        index=False, lineterminator="\n"
    )
    return text


def _counts(rows: Sequence[Row]) -> Numbers:
    found = Counter("ok" if row.measured is not None else row.status for row in rows)
    return {f"rows/{status}": found[status] for status in ("ok", "skipped", "failed")}


def _dense(rows: Sequence[Row]) -> Numbers:
    return {
        f"{row.model}/dense_accuracy": row.measured.quality.accuracy.value
        for row in rows
        if row.method.name == DENSE and row.measured
    }


def _gains(rows: Sequence[Row]) -> Numbers:
    """Return per model the largest compression ratio without a significant loss, of
    whatever method.
    """
    numbers: Numbers = {}
    for row in rows:
        ratio, name = size_gain(row), f"{row.model}/best_compression_ratio"
        if ratio is not None and lossless(row):
            numbers[name] = max(ratio, numbers.get(name, 1.0))
    return numbers


def _noise(table: Table) -> Numbers:
    return (
        {
            f"noise_floor_{table.hardware}/b{batch}": floor
            for batch, floor in table.run.floors.items()
        }
        if table.run
        else {}
    )


def _speeds(table: Table) -> Numbers:
    """Return per model the largest realised speed-up without a significant loss."""
    numbers: Numbers = {}
    for row in table.rows:
        speed, name = speed_gain(row, table.batch), f"{row.model}/best_speedup_{table.hardware}"
        if speed is not None and lossless(row):
            numbers[name] = max(speed, numbers.get(name, 1.0))
    return numbers
