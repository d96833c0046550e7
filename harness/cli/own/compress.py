"""One method at one setting on somebody's own model, without a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from harness.cli.lock import alone
from harness.cli.options import print_json
from leaderboard.records.errors import UserError

if TYPE_CHECKING:
    from harness.cli.own.trial import Trial


def compress_own(trial: Trial, method: str, onnx: bool, as_json: bool) -> None:
    """Compress the trial's model by its only new method, write it, and say in a line, or
    as JSON, what it is worth beside dense; end with exit code 1 if that failed.
    """
    from harness.run.compress import compress
    from harness.run.registry import configure
    from harness.run.train import train_track
    from leaderboard.records.results import read_record
    from leaderboard.records.schema import DENSE, Measured, MethodPoints

    (setting,) = trial.asked.methods[method]
    with alone(trial.paths, trial.asked.track):
        whole = trial.joined()
        list(trial.estimate())  # raises where images are too few
        whole.write()
        made, paths, track = whole.made, whole.paths, whole.asked.track
        train_track(made, paths, track)
        compress(made, paths, track, [DENSE, method])
        (dense,) = read_record(paths.points(track, DENSE), MethodPoints).points
        points = read_record(paths.points(track, method), MethodPoints).points
        asked = configure(method, setting)  # what stands may say it in other words
        (point,) = (one for one in points if configure(method, dict(one.setting)) == asked)
        if not isinstance(dense, Measured):
            raise UserError(f"dense cannot be measured: {dense.reason}")
        if not isinstance(point, Measured):
            typer.echo(f"{method} {point.status}: {point.reason}", err=True)
            raise typer.Exit(1)
    if as_json:
        found = {"dense": dense.model_dump(), "point": point.model_dump()}
        print_json(found | {"models": whole.deliver(onnx)})
        return
    share = "accuracy" if trial.unlabelled is None else "agreement with dense"
    typer.echo(
        f"{point.id}: {share} {100 * point.accuracy:.2f} % (dense {100 * dense.accuracy:.2f} %), "
        f"{point.bytes:,} bytes ({dense.bytes / point.bytes:.2f} times smaller), {point.macs:,} "
        f"MACs ({dense.macs / max(point.macs, 1):.2f} times fewer)"
    )
    typer.echo(f"models: {whole.deliver(onnx)}")
