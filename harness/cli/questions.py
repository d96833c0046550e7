"""The commands that answer questions: which setting to take, and what has changed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    OPTIONS,
    AsJson,
    Hardware,
    ParamsFile,
    Results,
    ShownTrack,
    Version,
    chosen,
    ends,
    print_json,
)
from leaderboard.tables.ranking.savings import Saving

app = typer.Typer(**OPTIONS)


@app.command(
    "recommend",
    epilog=ends("shrinkmark recommend --track digits --model vit --max-drop 1 --optimise latency"),
)
def recommend_command(
    model: Annotated[str, typer.Option(help="the model to compress")],
    optimise: Annotated[
        Saving, typer.Option(help="what should become small; latency is that of the smallest batch")
    ],
    max_drop: Annotated[
        float, typer.Option(min=0, help="the loss of accuracy to bear at most, in points")
    ] = 1.0,
    needs: Annotated[
        list[str] | None,
        typer.Option(
            help="only methods of this budget class, e.g. calibration (may be given again)"
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="how many rows to print")] = 5,
    track: ShownTrack = None,
    hardware: Hardware = None,
    results: Results = Path("results"),
    version: Version = None,
    as_json: AsJson = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Print which settings to take for a model and a goal.

    They lose little enough, the best cost comes first, and what cannot be told from the
    best is named.
    """
    from leaderboard.recommend.page import answered, recommend_text
    from leaderboard.recommend.recommend import Question

    choice, asked = chosen(results, version, params, track, hardware)
    question = Question(model, tuple(needs or ()), max_drop, optimise)
    if as_json:
        where = {"track": choice.track, "hardware": choice.hardware, "version": asked}
        print_json(where | answered(choice, question, top))
    else:
        text = recommend_text(choice, question, top)
        typer.echo(f"{choice.track} on {choice.hardware}, version {asked}\n\n{text}")


@app.command("compare", epilog=ends("shrinkmark compare main HEAD --track digits"))
def compare_command(
    a: Annotated[
        str,
        typer.Argument(
            help="a folder of results, a version in the folder of results, or a git revision: REV "
            "or "
            "REV:version",
            metavar="A",
        ),
    ],
    b: Annotated[str, typer.Argument(help="the same", metavar="B")],
    track: Annotated[
        str | None, typer.Option(help="the track to compare; by default every track that both have")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="the file to write; by default the text is printed")
    ] = None,
    results: Results = Path("results"),
    as_json: AsJson = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Say which rows moved from A to B, beyond noise or not.

    By how much, too, as Markdown.
    """
    from leaderboard.compare.compare import compare
    from leaderboard.compare.page import page
    from leaderboard.compare.sources import Home, opened
    from leaderboard.records.files import write_text

    home = Home(results, params)
    with opened(a, home) as before, opened(b, home) as after:
        found = compare(before, after, track)
        text = page(found)
    if as_json:
        print_json(asdict(found))
    elif into is None:
        typer.echo(text, nl=False)
    else:
        write_text(into, text)
        typer.echo(into.as_posix())
