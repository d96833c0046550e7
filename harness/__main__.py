"""The command line of the harness: `python -m harness COMMAND --help`."""

from __future__ import annotations

import gc
import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported: one thread in each worker; latency sets its own number

import sys

import typer

from harness.cli import results, stages, sweep, tools
from harness.cli.options import OPTIONS
from leaderboard.records.errors import UserError

app = typer.Typer(help=__doc__, **OPTIONS)
app.add_typer(stages.app)
app.add_typer(sweep.app)
app.add_typer(tools.app)
app.add_typer(results.app)


def main() -> None:
    """Run a command; bad input ends with one line and exit code 2, Ctrl-C with 130."""
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    finally:
        gc.freeze()  # or the interpreter spends most of a second collecting torch before it ends


if __name__ == "__main__":
    main()
