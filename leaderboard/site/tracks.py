"""What the site shows of a track: its tables, and the summary statistics that lie
beside them as CSV.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from leaderboard.records.errors import UserError
from leaderboard.records.files import read_text
from leaderboard.records.outline import Outline
from leaderboard.records.results import TABLES, track_folder
from leaderboard.records.schema import TrackInfo
from leaderboard.site.names import model_page, table_page
from leaderboard.tables.build import chosen_tracks, shown_table, track_tables
from leaderboard.tables.caption import dense_accuracies, resolution
from leaderboard.tables.table import Table

STATISTICS = {
    "tiers.csv": "Tiers of methods that the data cannot tell apart",
    "areas.csv": "Area under each method's front",
}


@dataclass(frozen=True)
class Statistic:
    """A CSV file as a titled table of text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SiteTrack:
    """A track, one table per hardware, and its statistics."""

    info: TrackInfo
    tables: tuple[Table, ...]
    statistics: tuple[Statistic, ...]

    @property
    def shown(self) -> Table:
        """Return the table that stands for the track where only one is shown."""
        return shown_table(self.tables)

    @property
    def resolution(self) -> str:
        """Return what differences the test split can show."""
        return resolution(self.info, dense_accuracies(self.shown))

    @property
    def idle(self) -> bool:
        """Say whether nothing is trained, so that methods that train are skipped."""
        return not any(model.trains for model in self.info.models.values())

    @property
    def pages(self) -> Mapping[str, str]:
        """Return the page of every table by its hardware."""
        return {
            table.hardware: table_page(self.info.track, table.hardware) for table in self.tables
        }

    @property
    def models(self) -> Mapping[str, str]:
        """Return the page of every model."""
        return {name: model_page(self.info.track, name) for name in self.info.models}


def read_site_tracks(results: Path, version: str, outline: Outline) -> tuple[SiteTrack, ...]:
    """Return every track that has results, in the order of params.yaml."""
    tracks = []
    for name in chosen_tracks(results, version, [], outline):
        tables = tuple(track_tables(results, version, name, outline))
        tracks.append(
            SiteTrack(
                tables[0].info, tables, _statistics(track_folder(results, version, name) / TABLES)
            )
        )
    return tuple(tracks)


def _statistics(folder: Path) -> tuple[Statistic, ...]:
    """Return the statistics that `folder` holds; one that was not written is left
    out.
    """
    return tuple(
        _statistic(folder / name, title)
        for name, title in STATISTICS.items()
        if (folder / name).exists()
    )


def _statistic(path: Path, title: str) -> Statistic:
    lines = [tuple(line) for line in csv.reader(read_text(path).splitlines())]
    if not lines or any(len(line) != len(lines[0]) for line in lines):
        raise UserError(
            f"{path} is not a table with a header and as many cells on every line: run "
            "`shrinkmark tables`"
        )
    return Statistic(title, lines[0], tuple(lines[1:]))
