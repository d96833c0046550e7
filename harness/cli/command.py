"""The command line: `shrinkmark COMMAND --help`, or `python -m shrinkmark` where the
command is not on the path.
"""

from __future__ import annotations

import gc
import os
import shlex
import sys
from pathlib import Path

# read when torch is imported: one thread in each worker; latency sets its own number
os.environ["OMP_NUM_THREADS"] = "1"
# worker processes would look for our packages in the folder they start in before all others
if Path.cwd() != Path(__file__).resolve().parents[2]:
    os.environ["PYTHONSAFEPATH"] = "1"

from typing import Any

import typer
from typer.core import TyperGroup

from harness.cli import check, exchange, questions, stages, sweep, tables, tools
from harness.cli.options import OPTIONS
from harness.cli.own import try_model
from leaderboard.records.errors import Interrupted, UserError


class OneLineErrors(TyperGroup):
    """Ends a command with one line and exit code 2 for bad input, 130 for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that `ctx` names."""
        try:
            return super().invoke(ctx)
        except (Interrupted, KeyboardInterrupt) as error:
            kept = str(error) or "nothing is half-written"
            again = shlex.join(["shrinkmark", *sys.argv[1:]])
            typer.echo(f"interrupted: {kept}; go on with: {again}", err=True)
            raise typer.Exit(130) from None
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None


HELP = (
    "Benchmark of methods that make neural networks smaller or faster: run it, add to it, ask it. "
    "Example: shrinkmark show --track digits"
)
app = typer.Typer(help=HELP, cls=OneLineErrors, **OPTIONS)
for part in (try_model, stages, sweep, tables, questions, check, exchange, tools):
    app.add_typer(part.app)


def main() -> None:
    """Run the command that the command line names."""
    try:
        app(prog_name="shrinkmark")
    finally:
        gc.freeze()  # or the interpreter spends most of a second collecting torch before it ends
