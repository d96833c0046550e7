"""What the commands of the leaderboard share: options, and how a command ends that cannot go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leaderboard.records.errors import UnknownName, UserError

if TYPE_CHECKING:  # commands import modules when they run, so that --help does not wait for them
    from leaderboard.tables.terminal import Choice

OPTIONS: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False}
Results = Annotated[Path, typer.Option(help="The folder of results.")]
Version = Annotated[str | None, typer.Option(help="The version of the results; by default that of params.yaml.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="The experiment: default version, and the order of tracks, methods and hardware.")]
Track = Annotated[str | None, typer.Option(help="The track to show; by default the first of params.yaml.")]
Hardware = Annotated[str | None, typer.Option(help="The hardware to show; by default the first of params.yaml.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line on stderr: exit code 2 for a name that does not exist, 1 for results that cannot be shown."""
    try:
        yield
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, UnknownName) else 1) from None


def chosen(results: Path, version: str | None, params: Path, track: str | None, hardware: str | None) -> tuple[Choice, str]:
    """Return the table that the options of a command ask for, and its version."""
    from leaderboard.records.outline import read_outline
    from leaderboard.tables.terminal import choose, find_tables

    outline = read_outline(params)
    asked = outline.chosen_version(version)
    return choose(find_tables(results, asked, outline), outline, track, hardware), asked
