"""The commands that make and show tables and pages, from results alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    OPTIONS,
    AsJson,
    Hardware,
    ParamsFile,
    Results,
    ShownTrack,
    Version,
    chosen,
    ends,
    print_json,
    tell_passed_over,
)

if TYPE_CHECKING:
    from leaderboard.records.params import Params

app = typer.Typer(**OPTIONS)

DIGESTED, README = Path("docs/results.md"), Path("README.md")
Page = Annotated[
    Path | None,
    typer.Option(help=f"the page whose digest is rewritten; by default {DIGESTED} if it exists"),
]
Digest = Annotated[bool, typer.Option(help="whether to rewrite the digest")]
Tracks = Annotated[
    list[str] | None,
    typer.Argument(
        help="the tracks to build; by default every track that has results", metavar="[TRACK]..."
    ),
]


@app.command("tables", epilog=ends("shrinkmark tables digits"))
def write_tables(
    tracks: Tracks = None,
    results: Results = Path("results"),
    version: Version = None,
    page: Page = None,
    digest: Digest = True,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Write the tables of tracks from their results.

    The tables, tiers.csv, areas.csv, metrics.json, curves.csv and digest.md of each
    track, the digest of all tracks built so far, and, where there is a place for them,
    the best rows of the track that is shown first in README.md and those of all tracks
    beside the digest.
    """
    # here, because scipy takes a second to import and --help needs none of it
    from leaderboard.recommend.best import first_tables, update_best
    from leaderboard.records.outline import read_outline
    from leaderboard.records.params import load_params
    from leaderboard.tables.build import build
    from leaderboard.tables.terminal import find_tables

    digested, readme = results.parent / DIGESTED, results.parent / README
    if page is None and digested.exists():
        page = digested
    outline = read_outline(params)
    for written in build(
        results, outline.chosen_version(version), tracks or [], page if digest else None, outline
    ):
        typer.echo(written.as_posix())
    if params.exists():
        _tell(load_params(params), results / outline.chosen_version(version), tracks)
    if digest:
        tables = first_tables(find_tables(results, outline.chosen_version(version), outline))
        if readme.exists():
            update_best(readme, tables[:1])
        if page is not None:
            update_best(page, tables)


def _tell(params: Params, folder: Path, tracks: list[str] | None) -> None:
    """Say which models are passed over by the tracks whose tables were made, of results
    of the version that `params` is of.
    """
    for track in (name for name in tracks or params.tracks if name in params.tracks):
        if folder.name == params.version:
            tell_passed_over(params, folder / track / "track.json", track)


@app.command(epilog=ends("shrinkmark show --track digits --hardware cpu"))
def show(
    track: ShownTrack = None,
    hardware: Hardware = None,
    results: Results = Path("results"),
    version: Version = None,
    as_json: AsJson = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Print the short table of a track on one hardware.

    Its rows are best, Pareto members or sanity rows; where the full tables lie is said
    below. They are written first if records are newer.
    """
    from leaderboard.records.outline import read_outline
    from leaderboard.tables.build import refresh

    outline = read_outline(params)
    refresh(results, outline.chosen_version(version), track, outline)
    from leaderboard.tables.cells import typed
    from leaderboard.tables.terminal import board_text, read_table, shown

    choice, asked = chosen(results, version, params, track, hardware)
    if as_json:
        rows = [typed(record) for record in shown(read_table(choice.path))]
        print_json(
            {"track": choice.track, "hardware": choice.hardware, "version": asked, "rows": rows}
        )
        return
    typer.echo(
        f"{choice.track} on {choice.hardware}, version {asked}\n\n"
        f"{board_text(read_table(choice.path))}\n"
    )
    typer.echo(f"tables: {choice.path.with_suffix('.md').as_posix()} and {choice.path.as_posix()}")


@app.command(epilog=ends("shrinkmark site --into site"))
def site(
    into: Annotated[Path, typer.Option(help="the folder of the site, which is replaced")] = Path(
        "site"
    ),
    results: Results = Path("results"),
    version: Version = None,
    methods: Annotated[
        Path | None,
        typer.Option(
            help="the folder of the methods' files, whose docstrings are shown; by default the "
            "package's own"
        ),
    ] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Write the static site: open its index.html in a browser.

    It has tables, plots, a page per method and model.
    """
    from harness.run.paths import ROOT
    from leaderboard.records.outline import read_outline

    # here, because scipy takes a second to import and --help needs none of it
    from leaderboard.site.site import build_site

    outline = read_outline(params)
    typer.echo(
        build_site(
            results, outline.chosen_version(version), into, outline, methods or ROOT / "methods"
        ).as_posix()
    )
