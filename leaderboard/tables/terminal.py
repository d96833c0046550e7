"""The leaderboard in a terminal, from a table's CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from tabulate import tabulate

from leaderboard.records.errors import UserError, one_line, unknown
from leaderboard.records.files import read_text
from leaderboard.records.outline import Outline, in_order
from leaderboard.records.results import TABLES, version_folder
from leaderboard.tables.cells import Record, cut, fixed, speedup_cell, whole
from leaderboard.tables.precision import accuracy_digits

# shown whether they win or not
SANITY = ("dense", "finetune_only", "slim", "random_pruning", "magnitude")
WIDTH = 160
NEEDED = """
    model method setting needs realisation test_images accuracy_percent delta_points
    delta_points_low significance bytes compression_ratio macs theoretical_speedup best
    pareto status
"""


@dataclass(frozen=True)
class Choice:
    """A table that was built."""

    track: str
    hardware: str
    path: Path


def find_tables(results: Path, version: str, outline: Outline) -> list[Choice]:
    """Return the tables that `build` wrote, in the order of params.yaml."""
    folder = version_folder(results, version)
    # not the summaries
    paths = [path for path in folder.glob(f"*/{TABLES}/*.csv") if path.with_suffix(".md").is_file()]
    found = [Choice(path.parents[1].name, path.stem, path) for path in paths]
    if not found:
        raise UserError(f"{folder} holds no tables: run `shrinkmark tables`")
    tracks = in_order([choice.track for choice in found], outline.tracks)
    hardware = in_order([choice.hardware for choice in found], outline.hardware)
    return sorted(
        found, key=lambda choice: (tracks.index(choice.track), hardware.index(choice.hardware))
    )


def choose(
    tables: Sequence[Choice], outline: Outline, track: str | None, hardware: str | None
) -> Choice:
    """Return the table asked for, by default the first; raise UnknownName with the
    nearest name.
    """
    built = {choice.track for choice in tables}
    if track is not None and track not in {*built, *outline.tracks}:
        raise unknown("track", track, {*built, *outline.tracks})
    if track is not None and track not in built:
        raise UserError(f"track '{track}' has no tables yet: run `shrinkmark tables {track}`")
    of_track = [choice for choice in tables if choice.track == (track or tables[0].track)]
    if hardware is not None and hardware not in {choice.hardware for choice in of_track}:
        raise unknown("hardware", hardware, {choice.hardware for choice in of_track})
    return next(
        choice for choice in of_track if choice.hardware == (hardware or of_track[0].hardware)
    )


def read_table(path: Path) -> list[Record]:
    """Return the records of a table's CSV, as text."""
    records = list(csv.DictReader(StringIO(read_text(path), newline="")))
    needed = set(NEEDED.split())
    if (
        not records
        or not needed <= set(records[0])
        or any(None in record.values() for record in records)
    ):
        raise UserError(f"{path} is not a table of this leaderboard: run `shrinkmark tables`")
    return records


def board_text(records: Sequence[Record]) -> str:
    """Return per model the rows that are best, Pareto members or sanity rows, at most
    160 columns wide.
    """
    rows = shown(records)
    models = dict.fromkeys(record["model"] for record in rows)
    return "\n\n".join(
        _fitted(model, [record for record in rows if record["model"] == model]) for model in models
    )


def shown(records: Sequence[Record]) -> list[Record]:
    """Return the rows that are best, Pareto members or sanity rows."""
    return [
        record
        for record in records
        if record["best"] or record["pareto"] or record["method"] in SANITY
    ]


def _fitted(model: str, records: Sequence[Record]) -> str:
    """Return one model's table, each line cut at the width of the board."""
    text = tabulate(
        [_line(record) for record in records],
        headers="keys",
        disable_numparse=True,
        colalign=_align(records[0]),
    )
    return "\n".join(line[:WIDTH].rstrip() for line in [f"{one_line(model)}:", *text.splitlines()])


def _align(record: Record) -> list[str]:
    text = ("method", "setting", "needs", "best", "pareto", "origin", "status")
    return ["left" if name in text else "right" for name in _line(record)]


def _line(record: Record) -> Record:
    line = {
        "method": cut(record["method"], 16),
        "setting": cut(record["setting"], 30),
        "needs": cut(record["needs"], 11),
    }
    digits = accuracy_digits(whole(record["test_images"]))
    line |= {
        "acc %": fixed(record["accuracy_percent"], digits),
        "Δ": f"{fixed(record['delta_points'], digits)}{record['significance']:3}",
    }
    line |= {
        "KiB": fixed(record["bytes"], 1, 1 / 1024),
        "size ×": fixed(record["compression_ratio"], 2),
    }
    line |= {"MACs ×": fixed(record["theoretical_speedup"], 2)}
    for column in record:
        if column.startswith("verdict_b"):
            line[f"{column.removeprefix('verdict_')} ×"] = speedup_cell(
                record, column.removeprefix("verdict_")
            )
    line |= {"best": record["best"], "pareto": record["pareto"]} | (
        {"origin": cut(record["origin"], 16)} if "origin" in record else {}
    )
    return line | {"status": record["status"].replace("ok", "")}
