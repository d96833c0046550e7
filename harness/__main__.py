"""The command line of the harness: `python -m harness COMMAND --help`."""

from __future__ import annotations

import gc
import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported: one thread in each worker; latency sets its own number

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.errors import UserError
from harness.pool import start_server

if TYPE_CHECKING:  # the modules are imported inside the commands, so that --help does not wait for torch
    from harness.params import Params
    from harness.paths import Paths

OPTIONS: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
app = typer.Typer(help=__doc__, **OPTIONS)
check = typer.Typer(help="Check params or committed results.", **OPTIONS)
app.add_typer(check, name="check")

ParamsFile = Annotated[Path, typer.Option("--params", help="the experiment")]
Track = Annotated[str, typer.Argument(help="a track of params.yaml, e.g. digits")]


@app.command()
def train(track: Track, params: ParamsFile = Path("params.yaml")) -> None:
    """Train the dense models of a track.

    Example: python -m harness train digits
    """
    loaded, paths = _open(params)
    start_server()
    from harness.train import train_track

    record = train_track(loaded, paths, track)
    for name, model in record["models"].items():
        typer.echo(f"{track} {name}: {model['parameters']:,} parameters, test accuracy {100 * model['test_accuracy']:.2f} %")


@app.command()
def code(params: ParamsFile = Path("params.yaml")) -> None:
    """Write the hashes of the code that methods share and of the steps of chains, for DVC to see when points must be run again.

    Example: python -m harness code
    """
    from harness import files
    from harness.code import of_chains, shared

    loaded, paths = _open(params)
    files.write_json(paths.code("shared"), shared())
    files.write_json(paths.code("chains"), of_chains(loaded.chains))


@app.command()
def compress(track: Track, method: Annotated[str, typer.Argument(help="a method, e.g. wanda")], params: ParamsFile = Path("params.yaml")) -> None:
    """Run the points of a method on a track that do not stand already.

    Example: python -m harness compress digits wanda
    """
    loaded, paths = _open(params)
    if not paths.artefacts(track, method).exists():  # else most points stand
        start_server()
    from harness.compress import compress as run

    typer.echo(f"{track} {method}: {run(loaded, paths, track, method)}")


@app.command()
def sweep(track: Track, params: ParamsFile = Path("params.yaml")) -> None:
    """Run the points of all methods on a track that do not stand already, together and longest first.

    Example: python -m harness sweep digits
    """
    loaded, paths = _open(params)
    start_server()
    from harness.compress import sweep as run

    typer.echo(f"{track}: {run(loaded, paths, track)}")


@app.command()
def measure(
    track: Track, hardware: Annotated[str, typer.Argument(help="a hardware profile, e.g. cpu")], params: ParamsFile = Path("params.yaml")
) -> None:
    """Time the artefacts of a track on this machine.

    Example: python -m harness measure digits cpu
    """
    from harness.measure import measure as run

    loaded, paths = _open(params)
    done = run(loaded, paths, track, hardware)
    for name, reason in done.failed.items():
        typer.echo(f"not measured: {name}: {reason}", err=True)
    if done.skipped is not None:
        typer.echo(f"{track} on {hardware}: skipped: {done.skipped}", err=True)


@app.command()
def hardware(params: ParamsFile = Path("params.yaml")) -> None:
    """Say which hardware profiles this machine can serve, with its fingerprint and noise floor under each.

    Example: python -m harness hardware
    """
    from harness.hardware import report

    for line in report(_open(params)[0]):
        typer.echo(line)


@app.command()
def export(
    track: Track,
    method: Annotated[str, typer.Argument(help="a method or chain, e.g. rtn")],
    point: Annotated[str, typer.Argument(help="a point of it, e.g. vit_bits=4_seed=0")],
    into: Annotated[Path, typer.Option(help="the file to write")] = Path("model.onnx"),
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Write the artefact of a point as an ONNX model, for any batch size.

    Example: python -m harness export digits int8_static resnet_seed=0 --into resnet.onnx
    """
    from harness.onnx_files import write_point

    loaded, paths = _open(params)
    typer.echo(f"{into}: {write_point(loaded, paths, track, method, point, into):,} bytes")


@app.command()
def run(
    track: Track,
    rehearse: Annotated[
        bool, typer.Option(help="try it in a minute or two: a few images, steps and settings, nothing kept, without a GPU if need be")
    ] = False,
    method: Annotated[list[str] | None, typer.Option(help="only this method or chain (may be given again), and dense")] = None,
    model: Annotated[list[str] | None, typer.Option(help="only this model (may be given again)")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="only so many seeds")] = None,
    into: Annotated[Path | None, typer.Option(help="the folder for artefacts and results, in place of that of params.yaml")] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Run a whole track, or a part of it, without DVC: train, compress by every method, measure.

    Finished points are kept and not run again. A part goes into a folder of its own.

    Example: python -m harness run digits --method wanda --model vit --into try
    """
    if (method or model or seeds) and into is None and not rehearse:
        raise UserError("a part of a track would replace the results of the whole: name a folder for it with --into FOLDER")
    loaded, paths = _open(params)
    start_server()
    from harness.paths import Paths
    from harness.run import Selection, rehearse_track, run_track, selected

    loaded = selected(loaded, track, Selection(tuple(method or ()), tuple(model or ()), seeds))
    paths = paths if into is None else Paths(into.resolve(), loaded.version)
    for line in (rehearse_track if rehearse else run_track)(loaded, paths, track):
        typer.echo(line)


@app.command()
def new(name: Annotated[str, typer.Argument(help="the method's name, e.g. my_method")], params: ParamsFile = Path("params.yaml")) -> None:
    """Write the skeleton of a method, its test and its line in params.yaml.

    Example: python -m harness new my_method
    """
    from harness.new import create

    _open(params)
    for path in create(params.resolve().parent, name):
        typer.echo(f"wrote {path}")


@app.command()
def macs(
    model: Annotated[str, typer.Argument(help="a timm name, e.g. resnet50")],
    top: Annotated[int, typer.Option(help="how many of the costliest operators to list")] = 20,
) -> None:
    """Count a timm model at its default input size, operator by operator.

    Example: python -m harness macs deit_small_patch16_224 --top 5
    """
    from harness import listing

    typer.echo(listing.of_timm_model(model, top))


@app.command()
def methods(
    readme: Annotated[Path | None, typer.Option(help="write it between the markers of this file instead of printing it")] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Print the table of the methods of params.yaml: what each declares, what it was checked against, how long its file is.

    Example: python -m harness methods --readme README.md
    """
    from harness import catalogue

    loaded, _ = _open(params)
    if readme is None:
        typer.echo(catalogue.table(loaded.methods))
    else:
        catalogue.update(readme, loaded.methods)


@check.command("params")
def check_params(params: ParamsFile = Path("params.yaml")) -> None:
    """Say whether params.yaml is well formed, down to every setting of every method.

    Example: python -m harness check params
    """
    from harness.points import expand

    loaded, _ = _open(params)
    points = sum(len(expand(loaded, track, method)) for track in loaded.tracks for method in loaded.plans)
    typer.echo(f"{params}: {len(loaded.tracks)} tracks, {len(loaded.methods)} methods, {len(loaded.chains)} chains, {points} points")


@check.command("results")
def check_results(params: ParamsFile = Path("params.yaml")) -> None:
    """Say whether the committed results belong to the committed code and params; exit 1 if not.

    Example: python -m harness check results
    """
    from harness.check import check_results as run

    loaded, paths = _open(params)
    findings = run(loaded, paths)
    for finding in findings:
        typer.echo(f"error: {finding}", err=True)
    if findings:
        sys.exit(1)
    typer.echo(f"results of version {loaded.version} belong to this code and params")


def _open(params: Path) -> tuple[Params, Paths]:
    from harness.params import load_params
    from harness.paths import Paths

    loaded = load_params(params)
    return loaded, Paths(params.resolve().parent, loaded.version)


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
