"""What the commands share: options, what stands below their help, and how params.yaml
and tables are opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leaderboard.records import CARRIED

if TYPE_CHECKING:  # commands import modules when they run, so that --help does not wait for torch
    from harness.run.paths import Paths
    from leaderboard.records.params import Params
    from leaderboard.tables.terminal import Choice

OPTIONS: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}


def _found(ctx: typer.Context, param: typer.CallbackParam, path: Path) -> Path:
    """Return the experiment that was named; else that of this folder, or else the one
    that comes with the package.
    """
    source = ctx.get_parameter_source(str(param.name))
    named = source is not None and source.name != "DEFAULT"
    return path if named or path.exists() else CARRIED


def _silent(quiet: bool) -> bool:
    """Switch the bars off, before tqdm is imported, which asks then."""
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
    return quiet


AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for a script to read")]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", callback=_silent, help="no progress: what was asked for and errors alone"
    ),
]
ParamsFile = Annotated[
    Path,
    typer.Option(
        "--params",
        callback=_found,
        help="the experiment; where this folder has none, the one that comes with the package",
    ),
]
BundleFile = Annotated[Path, typer.Argument(help="a bundle that `shrinkmark bundle` wrote")]
Hardware = Annotated[
    str | None,
    typer.Option(help="a hardware profile that was measured; by default the first of params.yaml"),
]
Results = Annotated[Path, typer.Option(help="the folder of results")]
ShownTrack = Annotated[
    str | None,
    typer.Option(
        "--track",
        help="a track with results; by default the first shown (shown_first in params.yaml)",
    ),
]
Track = Annotated[str, typer.Argument(help="a track of params.yaml, e.g. digits")]
Version = Annotated[
    str | None, typer.Option(help="the version of the results; by default that of params.yaml")
]


def ends(*examples: str, failed: str | None = None) -> str:
    """Return what stands below a command's help: examples, and the exit codes that it
    may end with; `failed`: when it ends with 1.
    """
    codes = [
        "0 done",
        *([f"1 {failed}"] if failed else []),
        "2 bad input, said in one line",
        "130 interrupted",
    ]
    return "\n\n".join(
        [*(f"Example: {example}" for example in examples), f"Exit codes: {'; '.join(codes)}."]
    )


def opened(params: Path) -> tuple[Params, Paths]:
    """Return what the file `params` says and where the files of its version lie: beside
    it, or here if it is the package's own.
    """
    from harness.run.paths import Paths
    from leaderboard.records.params import load_params

    loaded = load_params(params)
    return loaded, Paths(home_of(params), loaded.version)


def home_of(params: Path) -> Path:
    """Return the folder that results lie in beside the file `params`."""
    return Path.cwd() if params == CARRIED else params.resolve().parent


def print_json(content: Any) -> None:
    """Print what a script reads; what JSON does not know is its text."""
    typer.echo(json.dumps(content, indent=1, ensure_ascii=False, default=str))


def told(lines: Generator[str, None, int], quiet: bool) -> None:
    """Print `lines` as they come, unless `quiet`, and end with exit code 1 if points
    failed, whose number is what the generator returns.
    """
    while True:
        try:
            line = next(lines)
            if not quiet:
                typer.echo(line)
        except StopIteration as ended:
            if ended.value:
                raise typer.Exit(1) from None
            return


def tell_refused(methods: Iterable[str]) -> None:
    """Say on stderr which of `methods` and steps of chains are refused, and for which
    line of their text; their points fail, others run.
    """
    from harness.run import registry

    for line in registry.refusals(methods):
        typer.echo(line, err=True)


def tell_passed_over(params: Params, file: Path, track: str) -> None:
    """Say on stderr which models the track passes over, by its record `file`; one that
    is missing or damaged is the command's to say.
    """
    from leaderboard.records.errors import UserError
    from leaderboard.records.passed_over import lines
    from leaderboard.records.results import read_record
    from leaderboard.records.schema import TrackInfo

    try:
        info = read_record(file, TrackInfo)
    except UserError:
        return
    for line in lines(params, track, info):
        typer.echo(line, err=True)


def chosen(
    results: Path, version: str | None, params: Path, track: str | None, hardware: str | None
) -> tuple[Choice, str]:
    """Return the table that the options of a command ask for, and its version."""
    from leaderboard.records.outline import read_outline
    from leaderboard.tables.terminal import choose, find_tables

    outline = read_outline(params)
    asked = outline.chosen_version(version)
    return choose(find_tables(results, asked, outline), outline, track, hardware), asked
