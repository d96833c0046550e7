"""What a page's script gets of a table: columns, rows as lists of numbers and text, and
what the plots need beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from leaderboard.recommend.recommend import GAIN
from leaderboard.site.columns import Column, columns
from leaderboard.site.names import method_page, model_page
from leaderboard.tables.precision import accuracy_digits
from leaderboard.tables.rows import Row
from leaderboard.tables.table import Cells, Table, record

Value = str | float | None
# beside the smallest batch's speed-up
ASKED = ("method", "model", "setting", "needs", "accuracy_percent", "delta_points", *GAIN.values())


@dataclass(frozen=True)
class PageTable:
    """A table, or some of its rows, as JSON; `methods` and `models` are the pages of
    both, `root` leads to them.
    """

    track: str
    hardware: str
    root: str
    batches: tuple[int, ...]
    floors: dict[str, float]
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    methods: dict[str, str]
    models: dict[str, str]

    def json(self) -> dict[str, object]:
        """Return it as plain mappings and lists."""
        return asdict(self)


def page_table(table: Table, rows: Sequence[Row], root: str) -> PageTable:
    """Return `rows` of a table with every column, for a page from which `root` leads to
    index.html.
    """
    shown = columns(table.batches, accuracy_digits(table.info.images.test))
    keys = tuple(record(table, table.rows[0])) if table.rows else ()
    return _page_table(table, rows, root, shown, keys)


def asked_table(table: Table, root: str) -> PageTable:
    """Return the rows with the columns that a recommendation needs."""
    speed = f"speedup_b{table.batch}"
    names = (*ASKED, speed)
    shown = tuple(
        column
        for column in columns(table.batches, accuracy_digits(table.info.images.test))
        if column.key in names
    )
    ends = tuple(f"{name}_{end}" for name in ("delta_points", speed) for end in ("low", "high"))
    return _page_table(
        table,
        [row for row in table.rows if row.measured],
        root,
        shown,
        (*names, *ends, f"verdict_b{table.batch}"),
    )


def _page_table(
    table: Table, rows: Sequence[Row], root: str, shown: tuple[Column, ...], keys: tuple[str, ...]
) -> PageTable:
    numbers = {column.key for column in shown if column.digits is not None}
    numeric = frozenset(
        key for key in keys if key.removesuffix("_low").removesuffix("_high") in numbers
    )
    floors = {str(batch): floor for batch, floor in (table.run.floors if table.run else {}).items()}
    methods = {row.method.name: method_page(row.method.name) for row in rows}
    models = {row.model: model_page(table.info.track, row.model) for row in rows}
    lists = tuple(_values(record(table, row), keys, numeric) for row in rows)
    return PageTable(
        table.info.track,
        table.hardware,
        root,
        table.batches,
        floors,
        shown,
        keys,
        lists,
        methods,
        models,
    )


def _values(cells: Cells, keys: Sequence[str], numeric: frozenset[str]) -> tuple[Value, ...]:
    return tuple(_number(cells[key]) if key in numeric else cells[key] for key in keys)


def _number(text: str) -> float | None:
    """Return the number that a cell holds; JSON knows neither NaN nor infinity, so
    these are missing as the empty cell is.
    """
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None
