"""The commands that make results: the stages of dvc.yaml one by one, and a whole track
without DVC.
"""

from __future__ import annotations

import os
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
    tell_passed_over,
    tell_refused,
    told,
)
from harness.cli.own.options import (
    Args,
    Calibration,
    Classes,
    Device,
    Epochs,
    ImageSize,
    Imports,
    Mean,
    ModelText,
    Onnx,
    SkipBroken,
    Std,
    Weights,
    images_named,
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
    tell_passed_over(loaded, paths.records(track) / "track.json", track)


@app.command(
    epilog=ends(
        "shrinkmark compress digits wanda rtn",
        "shrinkmark compress resnet50 --images photographs --method gptq --set bits=4 --into out",
        failed="a point failed, after all were tried",
    )
)
def compress(
    track: Annotated[
        str, typer.Argument(help="a track of params.yaml, e.g. digits; or a timm name, with images")
    ],
    method: Annotated[
        list[str] | None,
        typer.Argument(
            help="methods or chains, e.g. wanda; without one, all", metavar="[METHOD]..."
        ),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="of your own model: a folder of photographs")
    ] = None,
    method_named: Annotated[
        str | None, typer.Option("--method", help="of your own model: a method, e.g. gptq")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="its setting, e.g. bits=4 (may be given again)"),
    ] = None,
    into: Annotated[Path | None, typer.Option(help="the folder for all that is made")] = None,
    weights: Weights = "timm",
    classes: Classes = None,
    imports: Imports = None,
    arg: Args = None,
    img_size: ImageSize = None,
    mean: Mean = None,
    std: Std = None,
    calibration: Calibration = 64,
    epochs: Epochs = 0,
    device: Device = "cpu",
    skip_broken: SkipBroken = False,
    onnx: Onnx = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Run the missing points of a track, longest first; or compress your own model.

    Of a track the points of all methods run together, and all are tried even where some
    fail. A failed point is tried again by the next run; what is cut off goes on when it
    is run again. Of your own model (--images) one method at one setting is run, and the
    model written; `shrinkmark try` compares several.
    """
    if images is None:
        told = (method_named, setting, into, classes, imports, arg, img_size, mean, std, onnx)
        if any(told) or skip_broken or epochs:
            raise UserError(
                "these options are for a model of your own: name its photographs with --images, or "
                "give methods of a track as arguments"
            )
        _compress_track(track, list(dict.fromkeys(method or [])), quiet, as_json, params)
        return
    if method_named is None or into is None or method:
        raise UserError(
            "a model of your own needs --method NAME, --into FOLDER, and no further names: see "
            "`shrinkmark compress --help`"
        )
    start_server()
    from harness.cli.own.compress import compress_own
    from harness.cli.own.trial import begun
    from harness.run.methods_named import setting_of
    from harness.trial.asked import Asked, named_in_results
    from leaderboard.records.params import load_params

    seen = images_named(images, classes, skip_broken)
    asked = Asked(
        ModelText(track, weights, imports, arg, img_size, mean, std).read(),
        named_in_results(seen.called),
        seen.dataset,
        seen.data,
        {method_named: [setting_of(method_named, setting or [])]},
        calibration,
        epochs,
        device,
        len(os.sched_getaffinity(0)),
    )
    compress_own(begun(asked, load_params(params), into), method_named, onnx, as_json)


def _compress_track(
    track: str, methods: list[str], quiet: bool, as_json: bool, params: Path
) -> None:
    loaded, paths = opened(params)
    if not paths.records(track).exists():  # else most points stand
        start_server()
    from harness.run.compress import compress as run

    loaded.track(track)  # before anything is written for it
    for name in methods:
        loaded.method(name)
    tell_refused(methods or loaded.plans)
    tell_passed_over(loaded, paths.records(track) / "track.json", track)
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
    tell_passed_over(loaded, paths.records(track) / "track.json", track)
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
