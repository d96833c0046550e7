"""The digest in the README: per track one line per method, what it reaches without a significant loss."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from leaderboard.best import lossless
from leaderboard.errors import ResultsError
from leaderboard.files import read_text, write_text
from leaderboard.markdown import escape, github_table, machine_text
from leaderboard.rows import DENSE, Row
from leaderboard.tables import Table

BEGIN, END = "<!-- digest:begin -->", "<!-- digest:end -->"


def digest_text(tables: Sequence[Table], link: str) -> str:
    """Return the digest of one table per track; `link` is the tables' folder as seen from the README."""
    return "\n\n".join(_track(table, link) for table in tables)


def updated(readme: str, digest: str, where: Path) -> str:
    """Return the README with the text between its markers replaced."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ResultsError(f"{where} lacks the lines {BEGIN} and {END}: add them where the digest belongs")
    return f"{before}{BEGIN}\n{digest}\n{END}{after}"


def update_readme(readme: Path, tables: Sequence[Table], folder: Path) -> None:
    """Write the digest of `tables` (their files lie in `folder`) into the README."""
    link = Path(os.path.relpath(folder, readme.parent)).as_posix()
    write_text(readme, updated(read_text(readme), digest_text(tables, link), readme))


def _track(table: Table, link: str) -> str:
    info = table.info
    lines = [f"### {escape(info.track)}, version {escape(info.version)}\n", f"Latency on {escape(table.hardware)}: {machine_text(table.run)}.\n"]
    lines.append(
        f"Each cell: the best compression ratio (bytes) / MACs ratio / realised speed-up (batch {table.batch}) over dense that the method reaches on"
        f" that model without a significant loss of accuracy on {info.images.test} test images (adjusted p >= 0.05), each possibly at another setting;"
        " `-`: every setting loses significantly, with the mildest loss in points. `tie`: within the noise of the clock; `masked`: no claim of speed."
        " Dense: its accuracy.\n"
    )
    lines.append(github_table(_records(table.rows, table.batch), ("method", "family", "needs", "realisation")))
    return "\n".join([*lines, f"\nAll rows: [{escape(table.name)}.md]({link}/{table.name}.md)"])


def _records(rows: Sequence[Row], batch: int) -> list[dict[str, str]]:
    models = list(dict.fromkeys(row.model for row in rows))
    records = []
    for name in dict.fromkeys(row.method.name for row in rows):
        mine = [row for row in rows if row.method.name == name]
        method = mine[0].method
        who = {"method": name, "family": method.family, "needs": method.needs, "realisation": method.realisation}
        what = {escape(model): escape(cell([row for row in mine if row.model == model], batch)) for model in models}
        records.append({key: escape(value) for key, value in who.items()} | what)
    return records


def cell(rows: Sequence[Row], batch: int) -> str:
    """Return what the rows of one method and model reach."""
    measured = [row.measured for row in rows if row.measured is not None]
    if not measured:
        return rows[0].status if rows else ""
    if rows[0].method.name == DENSE:
        return f"{100 * measured[0].quality.accuracy.value:.1f} %"
    kept = [row for row in rows if lossless(row)]
    if kept:
        return f"{_best_ratio(kept)} / {_best_macs(kept)} / {_best_time(kept, batch)}"
    deltas = [part.quality.delta.value for part in measured if part.quality.delta is not None]
    return f"- ({100 * max(deltas):.1f})" if deltas else "no dense"


def _best_ratio(rows: Sequence[Row]) -> str:
    return _times([row.measured.ratios.compression for row in rows if row.measured])


def _best_macs(rows: Sequence[Row]) -> str:
    return _times([row.measured.ratios.theoretical_speedup for row in rows if row.measured])


def _best_time(rows: Sequence[Row], batch: int) -> str:
    if rows[0].masked:
        return "masked"
    timed = [row.measured.latency[batch] for row in rows if row.measured and batch in row.measured.latency]
    if not timed:
        return "not measured"
    ranked = [part.speedup.value for part in timed if not part.tie]
    faster = [value for value in ranked if value > 1]
    return _times(faster) if faster else "tie" if len(ranked) < len(timed) else _times(ranked)


def _times(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):.2f}" if known else "?"
