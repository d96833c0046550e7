"""What the commands of the harness share: options, and how params.yaml is opened."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # commands import modules when they run, so that --help does not wait for torch
    from harness.run.paths import Paths
    from leaderboard.records.params import Params

OPTIONS: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
ParamsFile = Annotated[Path, typer.Option("--params", help="the experiment")]
Track = Annotated[str, typer.Argument(help="a track of params.yaml, e.g. digits")]


def opened(params: Path) -> tuple[Params, Paths]:
    """Return what the file `params` says and where the files of its version lie."""
    from harness.run.paths import Paths
    from leaderboard.records.params import load_params

    loaded = load_params(params)
    return loaded, Paths(params.resolve().parent, loaded.version)


def tell_refused(methods: Iterable[str]) -> None:
    """Say on stderr which of `methods` and steps of chains are refused, and for which line of their text; their points fail, others run."""
    from harness.run import registry

    for line in registry.refusals(methods):
        typer.echo(line, err=True)
