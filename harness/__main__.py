"""The command line of the harness: `python -m harness COMMAND --help`."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported: one thread in each worker; latency sets its own number

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__, rich_markup_mode=None)

ParamsFile = Annotated[Path, typer.Option("--params", help="the experiment")]
Track = Annotated[str, typer.Argument(help="a track of params.yaml, e.g. digits")]


@app.command()
def train(track: Track, params: ParamsFile = Path("params.yaml")) -> None:
    """Train the dense models of a track.

    Example: python -m harness train digits
    """
    from harness.train import train_track

    loaded, paths = _open(params)
    record = train_track(loaded, paths, track)
    for name, model in record["models"].items():
        typer.echo(f"{track} {name}: {model['parameters']:,} parameters, test accuracy {100 * model['test_accuracy']:.2f} %")


@app.command()
def compress(track: Track, method: Annotated[str, typer.Argument(help="a method, e.g. wanda")], params: ParamsFile = Path("params.yaml")) -> None:
    """Run the points of a method on a track that do not stand already.

    Example: python -m harness compress digits wanda
    """
    from harness.compress import compress as run

    loaded, paths = _open(params)
    summary = run(loaded, paths, track, method)
    typer.echo(f"{track} {method}: {summary.run} run, {summary.reused} stood, {summary.skipped} skipped, {summary.failed} failed")


@app.command()
def measure(
    track: Track, hardware: Annotated[str, typer.Argument(help="a hardware profile, e.g. cpu")], params: ParamsFile = Path("params.yaml")
) -> None:
    """Time the artefacts of a track on this machine.

    Example: python -m harness measure digits cpu
    """
    from harness.measure import measure as run

    loaded, paths = _open(params)
    for name, reason in run(loaded, paths, track, hardware).items():
        typer.echo(f"not measured: {name}: {reason}", err=True)


def _open(params: Path):  # type: ignore[no-untyped-def]
    from harness.params import load_params
    from harness.points import Paths

    loaded = load_params(params)
    return loaded, Paths(params.resolve().parent, loaded.version)


def main() -> None:
    """Run a command; bad input ends with one line and exit code 2, Ctrl-C with 130."""
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted: finished points are kept, run again to go on", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
