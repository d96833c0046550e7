"""The commands that make results: the stages of dvc.yaml one by one, and a whole track
without DVC.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.lock import alone
from harness.cli.options import (
    OPTIONS,
    AsJson,
    ParamsFile,
    Quiet,
    Track,
    ends,
    opened,
    print_json,
    tell_refused,
    told,
)
from harness.run.server.pool import start_server
from leaderboard.records.errors import UserError

app = typer.Typer(**OPTIONS)


@app.command(epilog=ends("shrinkmark train digits"))
def train(track: Track, quiet: Quiet = False, params: ParamsFile = Path("params.yaml")) -> None:
    """Train the dense models of a track."""
    loaded, paths = opened(params)
    start_server()
    from harness.run.train import train_track

    record = train_track(loaded, paths, track)
    for name, model in record.models.items():
        if not quiet:
            typer.echo(
                f"{track} {name}: {model.parameters:,} parameters, test accuracy "
                f"{100 * model.test_accuracy:.2f} %"
            )


@app.command(
    epilog=ends(
        "shrinkmark compress digits wanda rtn", failed="a point failed, after all were tried"
    )
)
def compress(
    track: Track,
    method: Annotated[
        list[str] | None,
        typer.Argument(
            help="methods or chains, e.g. wanda; without one, all", metavar="[METHOD]..."
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Run the missing points of a track, longest first.

    Those of all methods together, and all are tried even where some fail. A failed
    point is tried again by the next run;
    what is cut off goes on when it is run again.
    """
    loaded, paths = opened(params)
    if not paths.records(track).exists():  # else most points stand
        start_server()
    from harness.run.compress import compress as run

    methods = list(dict.fromkeys(method or []))
    loaded.track(track)  # before anything is written for it
    for name in methods:
        loaded.method(name)
    tell_refused(methods or loaded.plans)
    with alone(paths, track):
        done = run(loaded, paths, track, methods)
    if as_json:
        print_json(asdict(done))
    elif not quiet:
        typer.echo(f"{track}{''.join(f' {name}' for name in methods)}: {done}")
    if done.failed:
        raise typer.Exit(1)


@app.command(epilog=ends("shrinkmark measure digits cpu"))
def measure(
    track: Track,
    hardware: Annotated[str, typer.Argument(help="a hardware profile, e.g. cpu")],
    quiet: Quiet = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Time the artefacts of a track on this machine."""
    from harness.latency.measure import measure as run

    loaded, paths = opened(params)
    loaded.track(track)  # before a folder is made for it
    done = run(loaded, paths, track, hardware)
    for name, reason in done.failed.items():
        typer.echo(f"not measured: {name}: {reason}", err=True)
    if done.skipped is not None:
        typer.echo(f"{track} on {hardware}: skipped: {done.skipped}", err=True)


@app.command(
    epilog=ends(
        "shrinkmark run digits --method wanda --model vit --into try",
        failed="a point failed, after all were tried",
    )
)
def run(
    track: Track,
    rehearse: Annotated[
        bool,
        typer.Option(
            help="try it in a minute or two: a few images, steps and settings, nothing kept, "
            "without a GPU if need be"
        ),
    ] = False,
    method: Annotated[
        list[str] | None,
        typer.Option(help="only this method or chain (may be given again), and dense"),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="only this model (may be given again)")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="only so many seeds")] = None,
    into: Annotated[
        Path | None,
        typer.Option(help="the folder for artefacts and results, in place of that of params.yaml"),
    ] = None,
    quiet: Quiet = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Run a whole track, or a part of it, without DVC.

    Train, compress by every method, measure. Finished points are kept and not run
    again. A part goes into a folder of its own.
    """
    if (method or model or seeds) and into is None and not rehearse:
        raise UserError(
            "a part of a track would replace the results of the whole: name a folder for it with "
            "--into FOLDER"
        )
    loaded, paths = opened(params)
    start_server()
    from harness.cli.whole_track import rehearse_track, run_track
    from harness.run.paths import Paths
    from harness.run.selection import Selection, selected

    loaded = selected(loaded, track, Selection(tuple(method or ()), tuple(model or ()), seeds))
    paths = paths if into is None else Paths(into.resolve(), loaded.version)
    tell_refused(loaded.plans)
    # a rehearsal keeps to a folder of its own
    with nullcontext() if rehearse else alone(paths, track):
        told((rehearse_track if rehearse else run_track)(loaded, paths, track), quiet)
