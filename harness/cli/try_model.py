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
from harness.run.server.pool import start_server
from leaderboard.records.errors import UserError
from leaderboard.tables.ranking.savings import Saving

if TYPE_CHECKING:
    from harness.run.paths import Paths
    from harness.trial.asked import Asked
    from leaderboard.records.params import Params

app = typer.Typer(**OPTIONS)
EXPERIMENT = "params.yaml"
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
    model: Annotated[str, typer.Argument(help="a timm name, e.g. resnet50")],
    images: Annotated[
        Path, typer.Option(help="a folder of photographs: one folder a class, or train/ and val/")
    ],
    into: Annotated[Path, typer.Option(help="the folder for all that is made")],
    weights: Annotated[
        str, typer.Option(help="a file, `timm` for timm's own, or hf-hub:owner/name")
    ] = "timm",
    classes: Annotated[
        Path | None, typer.Option(help="the list of classes where not all have a folder")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="a method, e.g. gptq or gptq:bits=4 (may be given again)"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="every method of the budget")] = False,
    budget: Annotated[
        str, typer.Option(help="data-free, calibration, labels, fine-tune or scratch")
    ] = "calibration",
    epochs: Annotated[
        float, typer.Option(min=0, help="epochs of training, for the budgets that train")
    ] = 0,
    calibration: Annotated[int, typer.Option(min=1, help="images to calibrate on")] = 64,
    max_drop: Annotated[
        float, typer.Option(min=0, help="the loss of accuracy to bear at most, in points")
    ] = 1.0,
    optimise: Annotated[
        Saving | None, typer.Option(help="what should become small; by default each is answered")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes; by default one a core")
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="leave out files that are no images")
    ] = False,
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
    from harness.run.paths import Paths
    from harness.trial.asked import Asked, experiment, methods_of
    from leaderboard.records.params import load_params

    defaults = load_params(params)
    asked = Asked(
        model,
        str(Path(weights).resolve()) if Path(weights).is_file() else weights,
        images,
        classes,
        methods_of(method or [], every, budget, defaults),  # type: ignore[arg-type]
        budget,  # type: ignore[arg-type]
        calibration,
        epochs,
        device,
        workers or len(os.sched_getaffinity(0)),
        skip_broken,
    )
    made = experiment(asked, defaults)
    paths = Paths(into.resolve(), made.version)
    if dry_run:
        from harness.trial.estimate import estimate

        for line in estimate(made, asked):
            typer.echo(line)
        return
    with alone(paths, asked.track):
        whole = _noted(made, paths)
        _try(whole, paths, asked, quiet, [optimise] if optimise else list(GOALS), max_drop)


def _noted(made: Params, paths: Paths) -> Params:
    """Write the experiment beside its results, added to the one that stands there, and
    return it; raise UserError if the folder holds another, or something else.
    """
    import yaml

    from harness.trial.asked import added
    from leaderboard.records.files import write_text
    from leaderboard.records.params import load_params

    file = paths.root / EXPERIMENT
    if file.exists():
        before = load_params(file)
        if before.tracks != made.tracks:
            raise UserError(
                f"{paths.root} holds another trial (other model, images or options): name another "
                "folder with --into, or remove it"
            )
        made = added(made, before)
    elif paths.root.is_dir() and any(paths.root.iterdir()):
        raise UserError(f"{paths.root} is not empty and holds no trial: name another with --into")
    write_text(file, yaml.safe_dump(made.model_dump(mode="json"), sort_keys=False))
    return made


def _try(
    made: Params,
    paths: Paths,
    asked: Asked,
    quiet: bool,
    goals: list[Saving],
    max_drop: float,
) -> None:
    from harness.cli.whole_track import run_track
    from harness.run.paths import ROOT
    from harness.trial.models import deliver_all
    from leaderboard.recommend.page import rows_text
    from leaderboard.recommend.recommend import Question
    from leaderboard.records.outline import read_outline
    from leaderboard.site.site import build_site
    from leaderboard.tables.build import build
    from leaderboard.tables.terminal import board_text, choose, find_tables, read_table

    failed: typer.Exit | None = None
    try:
        told(run_track(made, paths, asked.track), quiet)
    except typer.Exit as error:  # some points failed: what is there is shown all the same
        failed = error
    results, outline = paths.root / "results", read_outline(paths.root / EXPERIMENT)
    build(results, made.version, [asked.track], None, outline)
    site = build_site(results, made.version, paths.root / "site", outline, ROOT / "methods")
    delivered = deliver_all(made, paths, asked.track, asked.name)
    choice = choose(find_tables(results, made.version, outline), outline, asked.track, None)
    typer.echo(f"\n{board_text(read_table(choice.path))}\n")
    for goal in goals:
        try:
            text = rows_text(choice, Question(asked.name, (), max_drop, goal), 3)
        except UserError as error:
            text = str(error)
        typer.echo(f"{GOALS[goal]} within {max_drop:g} points:\n{text}\n")
    typer.echo(f"site: {site.as_posix()}\ntables: {choice.path.with_suffix('.md').as_posix()}")
    typer.echo(f"models: {delivered.as_posix()}")
    if failed is not None:
        raise failed
