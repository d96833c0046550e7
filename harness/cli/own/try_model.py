"""The command that tries methods on somebody's own model and images: an experiment of
its own in a folder, its table, its answer, and the compressed models.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.lock import alone
from harness.cli.options import OPTIONS, ParamsFile, Quiet, ends, told
from harness.cli.own.options import (
    Args,
    Calibration,
    Classes,
    Device,
    Epochs,
    Images,
    ImageSize,
    Imports,
    Into,
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
from leaderboard.tables.ranking.savings import Saving

if TYPE_CHECKING:
    from harness.cli.own.trial import Trial

app = typer.Typer(**OPTIONS)
GOALS = {Saving.BYTES: "smallest", Saving.MACS: "fewest MACs", Saving.LATENCY: "fastest"}


@app.command(
    "try",
    epilog=ends(
        "shrinkmark try vit_tiny_patch16_224 --weights vit_tiny.safetensors --images photographs "
        "--into out",
        failed="a point failed, after all were tried",
    ),
)
def try_command(
    model: Annotated[
        str, typer.Argument(help="a timm name, e.g. resnet50, or package.module:function")
    ],
    images: Images,
    into: Into,
    weights: Weights = "timm",
    classes: Classes = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="a method, e.g. gptq or gptq:bits=4 (may be given again)"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="every method of the budget")] = False,
    budget: Annotated[
        str, typer.Option(help="data-free, calibration, labels, fine-tune or scratch")
    ] = "calibration",
    epochs: Epochs = 0,
    calibration: Calibration = 64,
    max_drop: Annotated[
        float, typer.Option(min=0, help="the loss of accuracy to bear at most, in points")
    ] = 1.0,
    optimise: Annotated[
        Saving | None, typer.Option(help="what should become small; by default each is answered")
    ] = None,
    imports: Imports = None,
    arg: Args = None,
    img_size: ImageSize = None,
    mean: Mean = None,
    std: Std = None,
    device: Device = "cpu",
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes; by default one a core")
    ] = None,
    skip_broken: SkipBroken = False,
    onnx: Onnx = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would run and about how long it takes")
    ] = False,
    quiet: Quiet = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Try methods on your own model and images.

    The same command goes on where it was cut off. At its end stand the table, what to
    take, and where the compressed models lie.
    """
    start_server()
    from harness.cli.own.trial import begun
    from harness.run.methods_named import methods_of
    from harness.trial.asked import Asked, named_in_results
    from leaderboard.records.params import load_params

    defaults = load_params(params)
    seen = images_named(images, classes, skip_broken)
    asked = Asked(
        ModelText(model, weights, imports, arg, img_size, mean, std).read(),
        named_in_results(seen.called),
        seen.dataset,
        seen.data,
        methods_of(method or [], every, budget, defaults),  # type: ignore[arg-type]
        calibration,
        epochs,
        device,
        workers or len(os.sched_getaffinity(0)),
    )
    trial = begun(asked, defaults, into)
    if dry_run:
        for line in trial.estimate():
            typer.echo(line)
        return
    with alone(trial.paths, asked.track):
        whole = trial.joined()
        expected = list(trial.estimate())  # raises where images are too few
        if not quiet:
            typer.echo("\n".join(expected), err=True)
        whole.write()
        _try(whole, quiet, [optimise] if optimise else list(GOALS), max_drop, onnx)


def _try(trial: Trial, quiet: bool, goals: list[Saving], max_drop: float, onnx: bool) -> None:
    from harness.cli.own.agreement_table import agreement_text
    from harness.cli.whole_track import run_track
    from harness.run.paths import ROOT
    from harness.trial.agreement import divergences
    from leaderboard.recommend.page import rows_text
    from leaderboard.recommend.recommend import Question
    from leaderboard.records.outline import read_outline
    from leaderboard.site.site import build_site
    from leaderboard.tables.build import build
    from leaderboard.tables.terminal import board_text, choose, find_tables, read_table

    made, paths, asked = trial.made, trial.paths, trial.asked
    failed: typer.Exit | None = None
    try:
        told(run_track(made, paths, asked.track), quiet)
    except typer.Exit as error:  # some points failed: what is there is shown all the same
        failed = error
    results, outline = paths.root / "results", read_outline(trial.file)
    build(results, made.version, [asked.track], None, outline)
    site = build_site(results, made.version, paths.root / "site", outline, ROOT / "methods")
    choice = choose(find_tables(results, made.version, outline), outline, asked.track, None)
    records = read_table(choice.path)
    board = (
        board_text(records)
        if trial.unlabelled is None
        else agreement_text(records, divergences(made, paths, asked.track))
    )
    typer.echo(f"\n{board}\n")
    for goal in goals:
        try:
            text = rows_text(choice, Question(asked.model.row, (), max_drop, goal), 3)
        except UserError as error:
            text = str(error)
        typer.echo(f"{GOALS[goal]} within {max_drop:g} points:\n{text}\n")
    typer.echo(f"site: {site.as_posix()}\ntables: {choice.path.with_suffix('.md').as_posix()}")
    typer.echo(f"models: {trial.deliver(onnx)}")
    if failed is not None:
        raise failed
