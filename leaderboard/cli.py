"""What the commands share: options, and how errors end them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from leaderboard.errors import ResultsError, UnknownName

Results = Annotated[Path, typer.Option(help="The folder of results.")]
Version = Annotated[str | None, typer.Option(help="The version of the results; by default that of params.yaml.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="The experiment: default version, and the order of tracks, methods and hardware.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line on stderr: exit code 2 for a name that does not exist, 1 for results that cannot be shown."""
    try:
        yield
    except ResultsError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, UnknownName) else 1) from None
