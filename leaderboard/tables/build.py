"""From a folder of results to every file that is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from leaderboard.records.errors import UserError, unknown
from leaderboard.records.files import write_folder
from leaderboard.records.latency import read_latency
from leaderboard.records.outline import Outline, in_order
from leaderboard.records.results import (
    TABLES,
    Correct,
    TrackResults,
    find_tracks,
    read_track,
    track_folder,
)
from leaderboard.tables.digest import DIGEST, check_page, digest_text, update_page
from leaderboard.tables.groups import find_hits
from leaderboard.tables.markdown import markdown_text
from leaderboard.tables.plots.accuracy import accuracy_plot
from leaderboard.tables.plots.promised import size_plot, speed_plot
from leaderboard.tables.ranking.areas import areas_text
from leaderboard.tables.ranking.tiers import tiers_text
from leaderboard.tables.rows import RowKey
from leaderboard.tables.summary import curves_text, metrics_text
from leaderboard.tables.table import Table, csv_text, make_table


def build(
    results: Path, version: str, asked: Sequence[str], page: Path | None, outline: Outline
) -> tuple[Path, ...]:
    """Write <track>/tables/ of every track in `asked`, by default of all, then the
    digest of all built so far into `page`; return the tables' pages.
    """
    if page is not None:
        check_page(page)
    contents = {
        track: read_track(results, version, track)
        for track in chosen_tracks(results, version, asked, outline)
    }
    tables = {track: make_tables(content, outline) for track, content in contents.items()}
    for track, group in tables.items():
        write_folder(
            track_folder(results, version, track) / TABLES,
            _texts(group, find_hits(contents[track])),
        )
    if page is not None:
        update_page(page, results / version, outline)
    return tuple(
        track_folder(results, version, track) / TABLES / f"{table.hardware}.md"
        for track, group in tables.items()
        for table in group
    )


def refresh(results: Path, version: str, track: str | None, outline: Outline) -> None:
    """Build the tables of `track` (None: of every track that has results) whose records
    are newer, or that there are not.
    """
    for name in find_tracks(results, version):
        if track in (None, name) and _is_behind(track_folder(results, version, name)):
            build(results, version, [name], None, outline)


def _is_behind(folder: Path) -> bool:
    made, records = (
        (folder / TABLES).glob("*.csv"),
        (path for path in folder.rglob("*") if path.is_file() and TABLES not in path.parts),
    )
    oldest = min((path.stat().st_mtime for path in made), default=0.0)
    return any(path.stat().st_mtime > oldest for path in records)


def chosen_tracks(results: Path, version: str, asked: Sequence[str], outline: Outline) -> list[str]:
    """Return the tracks asked for, by default all that have results, in the order of
    params.yaml; one that has none is an error.
    """
    found = find_tracks(results, version)
    for track in asked:
        if track not in {*found, *outline.tracks}:
            raise unknown("track", track, {*found, *outline.tracks})
        if track not in found:
            run = f"`make repro TRACK={track}`, or without DVC `shrinkmark run {track}`"
            raise UserError(f"track '{track}' has no results of version '{version}' yet: run {run}")
    if not asked and not found:
        raise UserError(f"{results / version} holds no <track>/track.json: run `dvc repro`")
    return in_order(list(dict.fromkeys(asked)) or found, outline.tracks)


def track_tables(results: Path, version: str, track: str, outline: Outline) -> list[Table]:
    """Read a track and return its tables."""
    return make_tables(read_track(results, version, track), outline)


def make_tables(content: TrackResults, outline: Outline) -> list[Table]:
    """Return a track's tables, one per hardware profile and machine that measured, at
    least one; machines are told apart by name where there are several.
    """
    measured = sorted({path.parent.name for path in (content.folder / "latency").glob("*/*.json")})
    if not measured:
        return [make_table(content, outline.untimed, None, outline.batches, outline.methods)]
    tables = []
    for hardware in in_order(measured, outline.hardware):
        runs = [
            read_latency(path, content.decided)
            for path in sorted((content.folder / "latency" / hardware).glob("*.json"))
        ]
        for run in runs:
            name = hardware if len(runs) == 1 else f"{hardware}_{run.machine.fingerprint}"
            tables.append(make_table(content, name, run, (1,), outline.methods))
    return tables


def _texts(tables: Sequence[Table], hits: Mapping[RowKey, Correct]) -> dict[str, str]:
    """Return the text of every file of a track, by name; `hits` are those of its
    measured rows.
    """
    pages = {
        f"{table.hardware}{ending}": text(table)
        for table in tables
        for ending, text in ((".csv", csv_text), (".md", markdown_text))
    }
    plots = {f"{table.hardware}.svg": speed_plot(table) for table in tables} | {
        "size.svg": size_plot(tables[0]),
        "accuracy.svg": accuracy_plot(tables[0]),
    }
    pages |= {name: text for name, text in plots.items() if text is not None}
    pages |= {
        "tiers.csv": tiers_text(shown_table(tables), hits),
        "areas.csv": areas_text(tables[0], hits),
    }
    return pages | {
        "metrics.json": metrics_text(tables),
        "curves.csv": curves_text(tables[0]),
        DIGEST: digest_text(shown_table(tables)),
    }


def shown_table(tables: Sequence[Table]) -> Table:
    """Return the table that stands for the track: the first with latency."""
    return next((table for table in tables if table.run is not None), tables[0])
