"""The commands beside the stages: what a machine can measure, a model for elsewhere, a
new method, counts and tables.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    OPTIONS,
    AsJson,
    ParamsFile,
    Track,
    ends,
    home_of,
    opened,
    print_json,
)
from leaderboard.records import CARRIED
from leaderboard.records.errors import UserError

app = typer.Typer(**OPTIONS)


@app.command(epilog=ends("shrinkmark hardware"))
def hardware(as_json: AsJson = False, params: ParamsFile = Path("params.yaml")) -> None:
    """Say which hardware profiles this machine can serve.

    Its fingerprint and its noise floor under each, too.
    """
    from harness.latency.hardware import report

    found = report(opened(params)[0])
    if as_json:
        print_json([asdict(profile) for profile in found])
    else:
        for profile in found:
            typer.echo(profile)


@app.command(epilog=ends("shrinkmark export digits int8_static resnet_seed=0 --into resnet.onnx"))
def export(
    track: Track,
    method: Annotated[str, typer.Argument(help="a method or chain, e.g. rtn")],
    point: Annotated[str, typer.Argument(help="a point of it, e.g. vit_bits=4_seed=0")],
    into: Annotated[Path, typer.Option(help="the file to write")] = Path("model.onnx"),
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Write the artefact of a point as an ONNX model.

    For any batch size.
    """
    from harness.latency.onnx_files import write_point

    loaded, paths = opened(params)
    typer.echo(f"{into}: {write_point(loaded, paths, track, method, point, into):,} bytes")


@app.command(epilog=ends("shrinkmark new my_method"))
def new(
    name: Annotated[str, typer.Argument(help="the method's name, e.g. my_method")],
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Write the skeleton of a method, its test, its params."""
    from harness.cli.new_method import create

    if params == CARRIED:
        raise UserError("params.yaml not found: run this in a checkout of shrinkmark")
    opened(params)
    for path in create(home_of(params), name):
        typer.echo(f"wrote {path}")


@app.command(epilog=ends("shrinkmark macs deit_small_patch16_224 --top 5"))
def macs(
    model: Annotated[str, typer.Argument(help="a timm name, e.g. resnet50")],
    top: Annotated[int, typer.Option(help="how many of the costliest operators to list")] = 20,
    as_json: AsJson = False,
) -> None:
    """Count the MACs of a timm model, operator by operator.

    At its default input size.
    """
    from harness.cli import macs_table

    count = macs_table.of_timm_model(model)
    if as_json:
        print_json({"model": model, "macs": count.macs, "flops": 2 * count.macs} | asdict(count))
    else:
        typer.echo(macs_table.text(count, top))


@app.command(epilog=ends("shrinkmark methods --page docs/methods.md"))
def methods(
    page: Annotated[
        Path | None,
        typer.Option(
            help="write it between the markers of this file instead of printing it, and a page "
            "of each method into the folder of that name"
        ),
    ] = None,
    as_json: AsJson = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Print the table of the methods of params.yaml.

    What each does and declares, how long its file is; on its page its settings, what it
    assumes and what it was checked against.
    """
    from harness.cli import methods_docs

    loaded, _ = opened(params)
    if as_json:
        print_json(methods_docs.rows(loaded.methods))
    elif page is None:
        typer.echo(methods_docs.table(loaded.methods))
    else:
        methods_docs.update(page, loaded.methods)
