"""The command line of the leaderboard: `python -m leaderboard COMMAND --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leaderboard.cli import exchange, questions, site
from leaderboard.cli.options import OPTIONS, Hardware, ParamsFile, Results, Track, Version, chosen, one_line_errors

app = typer.Typer(help="Tables of the benchmark, from its results alone. Example: python -m leaderboard show --track digits", **OPTIONS)
app.add_typer(questions.app)
app.add_typer(site.app)
app.add_typer(exchange.app)

Readme = Annotated[Path, typer.Option(help="The file whose digest is rewritten.")]
Digest = Annotated[bool, typer.Option(help="Whether to rewrite the digest in the README.")]
Tracks = Annotated[list[str] | None, typer.Argument(help="The tracks to build; by default every track that has results.", metavar="[TRACK]...")]


@app.command("build", epilog="Example: python -m leaderboard build digits")
def build_command(
    tracks: Tracks = None,
    results: Results = Path("results"),
    version: Version = None,
    readme: Readme = Path("README.md"),
    digest: Digest = True,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Write the tables, tiers.csv, areas.csv, metrics.json, curves.csv and digest.md of each track, and the README's digest of all tracks built so far."""
    with one_line_errors():
        from leaderboard.records.outline import read_outline
        from leaderboard.tables.build import build  # here, because scipy takes a second to import and --help needs none of it

        outline = read_outline(params)
        for page in build(results, outline.chosen_version(version), tracks or [], readme if digest else None, outline):
            typer.echo(page.as_posix())


@app.command(epilog="Example: python -m leaderboard show --track digits --hardware cpu")
def show(
    track: Track = None,
    hardware: Hardware = None,
    results: Results = Path("results"),
    version: Version = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Print the rows that are best, Pareto members or sanity rows, and say where the full tables lie; they are built first if records are newer."""
    with one_line_errors():
        from leaderboard.records.outline import read_outline
        from leaderboard.tables.build import refresh

        outline = read_outline(params)
        refresh(results, outline.chosen_version(version), track, outline)
        from leaderboard.tables.terminal import board_text, read_table

        choice, asked = chosen(results, version, params, track, hardware)
        typer.echo(f"{choice.track} on {choice.hardware}, version {asked}\n\n{board_text(read_table(choice.path))}\n")
        typer.echo(f"tables: {choice.path.with_suffix('.md').as_posix()} and {choice.path.as_posix()}")


if __name__ == "__main__":
    app(prog_name="python -m leaderboard")
