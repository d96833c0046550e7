"""The pages of the site as text, by path."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from leaderboard.records.schema import MethodInfo
from leaderboard.site.archive import Archive
from leaderboard.site.data import PageTable, asked_table, page_table
from leaderboard.site.docstrings import Docstring, arxiv
from leaderboard.site.names import method_page
from leaderboard.site.tracks import SiteTrack
from leaderboard.tables.caption import REFERENCE
from leaderboard.tables.ranking.losses import (
    RULE,
    ControlLoss,
    MildLoss,
    control_losses,
    mild_losses,
)
from leaderboard.tables.rows import Row
from leaderboard.tables.table import Table

Pages = dict[str, str]


@dataclass(frozen=True)
class Site:
    """All that pages are made of."""

    version: str
    tracks: tuple[SiteTrack, ...]
    docstrings: Mapping[str, Docstring]
    archive: Archive | None = None

    @property
    def methods(self) -> dict[str, MethodInfo]:
        """Return the methods of all tracks, in the order of the tables."""
        return {
            row.method.name: row.method
            for track in self.tracks
            for table in track.tables
            for row in table.rows
        }


@dataclass(frozen=True)
class MethodOnTrack:
    """A method's rows on one track, and where they lose; `unmeasured` says of each row
    why it has no numbers, where no row has any.
    """

    track: SiteTrack
    table: PageTable
    unmeasured: tuple[Row, ...]
    mild: tuple[MildLoss, ...]
    controls: tuple[ControlLoss, ...]


def pages(site: Site) -> Pages:
    """Return every page by its path below the site's folder."""
    templates = _templates()
    found = {"index.html": _index(site, templates)}
    if site.archive is not None:
        found["archive.html"] = templates.get_template("archive.html").render(site=site, root="")
    for track in site.tracks:
        found |= _track_pages(site, track, templates) | _model_pages(site, track, templates)
    return found | _method_pages(site, templates)


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("leaderboard.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["reference"] = REFERENCE
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {
        "breakable": breakable,
        "code": code,
        "arxiv": arxiv,
        "method_page": method_page,
        "dedent": textwrap.dedent,
    }
    return environment


def code(text: str) -> Markup:
    """Return text as HTML in which what stands between backticks is code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else part
        for index, part in enumerate(parts)
    )


def breakable(name: str) -> Markup:
    """Return a name that a narrow column may break behind its underscores."""
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))


def _index(site: Site, templates: Environment) -> str:
    asked = [asked_table(track.shown, "") for track in site.tracks]
    return templates.get_template("index.html").render(site=site, root="", asked=asked)


def _track_pages(site: Site, track: SiteTrack, templates: Environment) -> Pages:
    template = templates.get_template("track.html")
    return {
        track.pages[table.hardware]: template.render(
            site=site,
            root="../",
            track=track,
            table=table,
            data=page_table(table, table.rows, "../"),
        )
        for table in track.tables
    }


def _model_pages(site: Site, track: SiteTrack, templates: Environment) -> Pages:
    template = templates.get_template("model.html")
    table = track.shown
    return {
        page: template.render(
            site=site,
            root="../",
            track=track,
            table=table,
            model=model,
            data=page_table(table, _of_model(table, model), "../"),
        )
        for model, page in track.models.items()
    }


def _of_model(table: Table, model: str) -> Sequence[Row]:
    return [row for row in table.rows if row.model == model]


def _method_pages(site: Site, templates: Environment) -> Pages:
    template = templates.get_template("method.html")
    found = {}
    for name, method in site.methods.items():
        parts = [part for track in site.tracks if (part := _on_track(name, track)) is not None]
        docstring = site.docstrings.get(name, Docstring())
        found[method_page(name)] = template.render(
            site=site, root="../", method=method, docstring=docstring, parts=parts, rule=RULE
        )
    return found


def _on_track(name: str, track: SiteTrack) -> MethodOnTrack | None:
    rows = [row for row in track.shown.rows if row.method.name == name]
    if not rows:
        return None
    return MethodOnTrack(
        track,
        page_table(track.shown, rows, "../"),
        () if any(row.measured for row in rows) else tuple(rows),
        mild_losses(rows),
        control_losses(rows, track.shown.rows),
    )
