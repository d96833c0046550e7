"""The digest in the docs: per track one line per method, what it reaches without a
significant loss.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from leaderboard.records.files import put_between, read_text, write_text
from leaderboard.records.outline import Outline, in_order
from leaderboard.records.results import TABLES
from leaderboard.records.schema import DENSE
from leaderboard.tables.caption import dense_accuracies, machine_text, origin, resolution
from leaderboard.tables.github import escape, github_table
from leaderboard.tables.precision import accuracy_digits, number
from leaderboard.tables.ranking.best import lossless
from leaderboard.tables.rows import Row
from leaderboard.tables.table import Table

MARKER = "digest"  # of its place in a page
DIGEST = "digest.md"  # a track's section of the digest, beside its tables


def check_page(page: Path) -> None:
    """Raise UserError if the page has no place for the digest."""
    put_between(read_text(page), MARKER, "", page)


def update_page(page: Path, folder: Path, outline: Outline) -> None:
    """Write the sections of all tracks whose tables lie in the results `folder` of one
    version into the page, in the order of params.yaml.
    """
    homes = {path.parents[1].name: path.parent for path in folder.glob(f"*/{TABLES}/{DIGEST}")}
    tracks = in_order(list(homes), outline.tracks)
    sections = [
        f"{read_text(homes[track] / DIGEST).strip()}\n\n"
        f"{_links(page, track, homes[track], outline)}"
        for track in tracks
    ]
    write_text(page, put_between(read_text(page), MARKER, "\n\n".join(sections), page))


def _links(page: Path, track: str, folder: Path, outline: Outline) -> str:
    """Return the links to the pages of one track, as seen from the page."""
    pages = in_order(
        [path.stem for path in folder.glob("*.md") if path.name != DIGEST], outline.hardware
    )
    link = Path(os.path.relpath(folder, page.parent)).as_posix()
    return (
        "All rows: "
        f"{', '.join(f'[{escape(track)}/{escape(page)}.md]({link}/{page}.md)' for page in pages)}"
    )


def digest_text(table: Table) -> str:
    """Return a track's section: where its numbers come from, and one line per
    method.
    """
    info = table.info
    lines = [
        f"### {escape(info.track)}, version {escape(info.version)}\n",
        f"{escape(info.title)}. {origin(table)} {resolution(info, dense_accuracies(table))}\n",
    ]
    lines.append(f"Latency on {escape(table.hardware)}: {machine_text(table.run)}.\n")
    lines.append(
        "Each cell: the best compression ratio (bytes) / MACs ratio / realised speed-up (batch "
        f"{table.batch}) over dense that the method reaches on that model without a significant "
        f"loss of accuracy on {info.images.test:,} test images (adjusted p >= 0.05), each possibly "
        "at another setting; `-`: every setting loses significantly, with the mildest loss in "
        "points. `tie`: within the noise of the clock; `masked`: no claim of speed. Dense: its "
        "accuracy.\n"
    )
    by_method = {
        name: [row for row in table.rows if row.method.name == name]
        for name in dict.fromkeys(row.method.name for row in table.rows)
    }
    skipped = {
        name: rows
        for name, rows in by_method.items()
        if all(row.status == "skipped" for row in rows)
    }
    shown = {name: rows for name, rows in by_method.items() if name not in skipped}
    if shown:
        lines.append(
            github_table(_records(table, shown), ("method", "family", "needs", "realisation"))
        )
    if skipped:
        lines.append(f"\nSkipped on every model: {_skipped(skipped)}.")
    return "\n".join(lines) + "\n"


def _skipped(by_method: Mapping[str, Sequence[Row]]) -> str:
    """Return the methods that were skipped everywhere, together with those of the same
    reason.
    """
    together: dict[str, list[str]] = {}
    for name, rows in by_method.items():
        reason = ", ".join(dict.fromkeys(row.reason for row in rows))
        together.setdefault(reason, []).append(name)
    return "; ".join(
        f"{escape(reason)}: {escape(', '.join(names))}" for reason, names in together.items()
    )


def _records(table: Table, by_method: Mapping[str, Sequence[Row]]) -> list[dict[str, str]]:
    models = list(dict.fromkeys(row.model for row in table.rows))
    records = []
    for name, mine in by_method.items():
        method = mine[0].method
        who = {
            "method": f"{name} (from elsewhere)" if any(row.origin for row in mine) else name,
            "family": method.family,
            "needs": method.needs,
            "realisation": method.realisation,
        }
        what = {
            escape(model): escape(_cell(table, [row for row in mine if row.model == model]))
            for model in models
        }
        records.append({key: escape(value) for key, value in who.items()} | what)
    return records


def _cell(table: Table, rows: Sequence[Row]) -> str:
    """Return what the rows of one method and model reach."""
    digits = accuracy_digits(table.info.images.test)
    measured = [row.measured for row in rows if row.measured is not None]
    if not measured:
        return rows[0].status if rows else ""
    if rows[0].method.name == DENSE:
        return f"{number(measured[0].quality.accuracy.value, digits, 100)} %"
    kept = [row for row in rows if lossless(row)]
    if kept:
        return f"{_best_ratio(kept)} / {_best_macs(kept)} / {_best_time(kept, table.batch)}"
    deltas = [part.quality.delta.value for part in measured if part.quality.delta is not None]
    return f"- ({number(max(deltas), digits, 100)})" if deltas else "no dense"


def _best_ratio(rows: Sequence[Row]) -> str:
    return _times([row.measured.ratios.compression for row in rows if row.measured])


def _best_macs(rows: Sequence[Row]) -> str:
    return _times([row.measured.ratios.theoretical_speedup for row in rows if row.measured])


def _best_time(rows: Sequence[Row], batch: int) -> str:
    timed = [
        row.measured.latency[batch]
        for row in rows
        if row.measured and batch in row.measured.latency
    ]
    if not timed:
        return "masked" if rows[0].masked else "not measured"
    ranked = [part.speedup.value for part in timed if not part.tie]
    faster = [value for value in ranked if value > 1]
    return _times(faster) if faster else "tie" if len(ranked) < len(timed) else _times(ranked)


def _times(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):.2f}" if known else "?"
