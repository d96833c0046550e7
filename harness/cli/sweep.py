"""The command that computes all missing points together: in worker processes of this
machine, or on a Ray cluster.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.lock import alone
from harness.cli.options import (
    OPTIONS,
    ParamsFile,
    Quiet,
    ends,
    opened,
    tell_passed_over,
    tell_refused,
    told,
)
from harness.run.server.pool import start_server
from leaderboard.records.errors import UserError

if TYPE_CHECKING:
    from harness.run.paths import Paths
    from leaderboard.records.params import Params

app = typer.Typer(**OPTIONS)
Several = list[str] | None


@app.command(
    epilog=ends(
        "shrinkmark sweep digits",
        "shrinkmark sweep --track digits --address auto --remote /shared/shrinkmark",
        failed="a point failed, after all were tried",
    )
)
def sweep(
    named: Annotated[
        str | None, typer.Argument(metavar="[TRACK]", help="a track of params.yaml, as --track")
    ] = None,
    track: Annotated[
        Several,
        typer.Option(help="a track (may be given again); without one, all that were trained here"),
    ] = None,
    method: Annotated[
        Several, typer.Option(help="only this method or chain (may be given again)")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="a Ray cluster: ray://HOST:10001, HOST:6379, auto (the one this machine is in), "
            "local"
        ),
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option(help="the folder, URL or DVC remote that every node of the cluster reaches"),
    ] = None,
    cpus: Annotated[
        float, typer.Option(min=0.1, help="processors that a point asks of a node")
    ] = 1,
    gpus: Annotated[
        float,
        typer.Option(
            min=0, help="GPUs, or a part of one, that a point of a track for cuda asks of a node"
        ),
    ] = 1,
    memory: Annotated[
        float, typer.Option(min=0, help="GiB that a point asks of a node; 0: memory is not counted")
    ] = 0,
    measure: Annotated[
        Several,
        typer.Option(
            help="then time the artefacts on the node that offers this hardware, alone (may be "
            "given "
            "again)"
        ),
    ] = None,
    quiet: Quiet = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Run the missing points of several tracks, or on a cluster.

    All methods together, longest first; what is cut off goes on when it is run again.
    On a cluster (docs/cluster.md) the workers run the committed code.
    """
    loaded, paths = opened(params)
    tracks = list(dict.fromkeys([*([named] if named else []), *(track or [])])) or _trained(
        loaded, paths
    )
    methods = list(dict.fromkeys(method or []))
    for name in tracks:
        loaded.track(name)
    for name in methods:
        loaded.method(name)
    if address is None and (remote or measure):
        raise UserError("--remote and --measure are for a cluster: name it with --address")
    if address is None:
        start_server()
    tell_refused(methods or loaded.plans)
    for name in tracks:
        tell_passed_over(loaded, paths.records(name) / "track.json", name)
    with ExitStack() as held:
        for name in tracks:
            held.enter_context(alone(paths, name))
        if address is None:
            lines = _here(loaded, paths, tracks, methods)
        else:
            if find_spec("ray") is None:
                raise UserError("Ray is not installed: pip install -e '.[ray]'")
            from harness.cluster.shape import TaskShape
            from harness.cluster.sweep_at import Asked, sweep_at

            lines = sweep_at(
                address,
                loaded,
                paths,
                Asked(tracks, methods, measure or [], remote, TaskShape(cpus, gpus, memory)),
            )
        told(lines, quiet)


def _here(
    params: Params, paths: Paths, tracks: Sequence[str], methods: Sequence[str]
) -> Generator[str, None, int]:
    from harness.run.compress import compress as run

    failed = 0
    for track in tracks:
        done = run(params, paths, track, methods)
        failed += done.failed
        yield f"{track}: {done}"
    return failed


def _trained(params: Params, paths: Paths) -> list[str]:
    found = [track for track in params.tracks if paths.dense(track).exists()]
    if not found:
        raise UserError(
            "no track was trained here: run `shrinkmark train TRACK` first, or `dvc repro`"
        )
    return found
