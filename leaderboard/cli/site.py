"""The command that makes the static site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leaderboard.cli.options import ParamsFile, Results, Version, one_line_errors

app = typer.Typer()


@app.command(epilog="Example: python -m leaderboard site --into site")
def site(
    into: Annotated[Path, typer.Option(help="The folder of the site, which is replaced.")] = Path("site"),
    results: Results = Path("results"),
    version: Version = None,
    methods: Annotated[Path, typer.Option(help="The folder of the methods' files, whose docstrings are shown.")] = Path("methods"),
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Write the static site: tables, plots, a page per method and model; open its index.html in a browser."""
    with one_line_errors():
        from leaderboard.records.outline import read_outline
        from leaderboard.site.site import build_site  # here, because scipy takes a second to import and --help needs none of it

        outline = read_outline(params)
        typer.echo(build_site(results, outline.chosen_version(version), into, outline, methods).as_posix())
