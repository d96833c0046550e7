"""What the commands of the leaderboard share: options, and errors of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from leaderboard.errors import ResultsError, UnknownName

Results = Annotated[Path, typer.Option(help="The folder of results.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="The experiment: default version, and the order of tracks, methods and hardware.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line on stderr: exit code 2 for a name that does not exist, 1 for results that cannot be shown."""
    try:
        yield
    except ResultsError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, UnknownName) else 1) from None
