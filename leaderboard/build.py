"""From a folder of results to every file that is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leaderboard.digest import update_readme
from leaderboard.experiment import Experiment, in_order
from leaderboard.files import write_text
from leaderboard.latency import read_latency
from leaderboard.markdown import markdown_text
from leaderboard.results import find_tracks, read_track
from leaderboard.summary import curves_text, metrics_text
from leaderboard.tables import Table, csv_text, make_table

UNMEASURED = "unmeasured"  # names the table of results that no hardware was asked to time


def build(results: Path, version: str, readme: Path, experiment: Experiment) -> tuple[Path, ...]:
    """Write the tables, metrics and curves of all tracks and the README's digest; return the tables' pages."""
    tracks = in_order(find_tracks(results, version), list(experiment.tracks))
    tables = [track_tables(results, version, track, experiment) for track in tracks]
    folder = results / version / "tables"
    update_readme(readme, [_shown(group) for group in tables], folder)
    write_text(folder / "metrics.json", metrics_text(tables))
    write_text(folder / "curves.csv", curves_text([group[0] for group in tables]))
    return tuple(_write(folder, table) for group in tables for table in group)


def track_tables(results: Path, version: str, track: str, experiment: Experiment) -> list[Table]:
    """Return a track's tables, one per hardware of params.yaml or of the results."""
    content = read_track(results, version, track)
    measured = [path.stem for path in (content.folder / "latency").glob("*.json")]
    hardware = in_order(sorted({*measured, *experiment.hardware}), list(experiment.hardware)) or [UNMEASURED]
    tables = []
    for name in hardware:
        batches = experiment.hardware[name].batches if name in experiment.hardware else (1,)
        run = read_latency(content.folder / "latency" / f"{name}.json")
        tables.append(make_table(content, name, run, batches, list(experiment.methods)))
    return tables


def _shown(tables: Sequence[Table]) -> Table:
    """Return the table that stands for the track: the first with latency."""
    return next((table for table in tables if table.run is not None), tables[0])


def _write(folder: Path, table: Table) -> Path:
    write_text(folder / f"{table.name}.csv", csv_text(table))
    write_text(folder / f"{table.name}.md", markdown_text(table))
    return folder / f"{table.name}.md"
