"""From a folder of results to every file that is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leaderboard.digest import DIGEST, check_readme, digest_text, update_readme
from leaderboard.errors import ResultsError, unknown
from leaderboard.experiment import Experiment, in_order
from leaderboard.files import write_folder
from leaderboard.latency import read_latency
from leaderboard.markdown import markdown_text
from leaderboard.results import RECORDS, find_tracks, read_track
from leaderboard.summary import curves_text, metrics_text
from leaderboard.tables import Table, csv_text, make_table

UNMEASURED = "unmeasured"  # names the table of results that no hardware was asked to time


def build(results: Path, version: str, asked: Sequence[str], readme: Path | None, experiment: Experiment) -> tuple[Path, ...]:
    """Write tables/<track>/ of every track in `asked`, by default of all, then the digest of all built so far into `readme`; return the tables' pages."""
    if readme is not None:
        check_readme(readme)
    folder = results / version / "tables"
    tables = {track: track_tables(results, version, track, experiment) for track in chosen_tracks(results, version, asked, experiment)}
    for track, group in tables.items():
        write_folder(folder / track, _texts(group))
    if readme is not None:
        update_readme(readme, folder, experiment)
    return tuple(folder / track / f"{table.hardware}.md" for track, group in tables.items() for table in group)


def chosen_tracks(results: Path, version: str, asked: Sequence[str], experiment: Experiment) -> list[str]:
    """Return the tracks asked for, by default all that have results, in the order of params.yaml; one that has none is an error."""
    found = find_tracks(results, version)
    for track in asked:
        if track not in {*found, *experiment.tracks}:
            raise unknown("track", track, {*found, *experiment.tracks})
        if track not in found:
            run = f"`dvc repro leaderboard@{track}`, or without DVC `python -m harness run {track}`"
            raise ResultsError(f"track '{track}' has no results of version '{version}' yet: run {run}")
    if not asked and not found:
        raise ResultsError(f"{results / version / RECORDS} holds no <track>/track.json: run `dvc repro`")
    return in_order(list(dict.fromkeys(asked)) or found, list(experiment.tracks))


def track_tables(results: Path, version: str, track: str, experiment: Experiment) -> list[Table]:
    """Return a track's tables, one per hardware of params.yaml or of the results."""
    content = read_track(results, version, track)
    measured = [path.stem for path in (content.folder / "latency").glob("*.json")]
    hardware = in_order(sorted({*measured, *experiment.hardware}), list(experiment.hardware)) or [UNMEASURED]
    tables = []
    for name in hardware:
        batches = experiment.hardware[name].batches if name in experiment.hardware else (1,)
        run = read_latency(content.folder / "latency" / f"{name}.json")
        tables.append(make_table(content, name, run, batches, [*experiment.methods, *experiment.chains]))
    return tables


def _texts(tables: Sequence[Table]) -> dict[str, str]:
    """Return the text of every file of a track, by name."""
    pages = {f"{table.hardware}{ending}": text(table) for table in tables for ending, text in ((".csv", csv_text), (".md", markdown_text))}
    return pages | {"metrics.json": metrics_text(tables), "curves.csv": curves_text(tables[0]), DIGEST: digest_text(_shown(tables))}


def _shown(tables: Sequence[Table]) -> Table:
    """Return the table that stands for the track: the first with latency."""
    return next((table for table in tables if table.run is not None), tables[0])
