"""The ONNX models of a track's artefacts, made a few at a time and kept until the
artefact or what exports it changes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data import splits
from harness.latency.runtimes import not_installed
from harness.point import store
from harness.run import fingerprint
from harness.run.paths import Paths
from harness.run.progress import progress
from harness.run.server.pool import run_lasting, workers
from leaderboard.records import files
from leaderboard.records.errors import UserError, unknown
from leaderboard.records.params import Params


@dataclass(frozen=True)
class Export:
    """An artefact that becomes the ONNX model `file`, traced with an image of the
    track's in `data`.
    """

    folder: Path
    data: Path
    file: Path


def exported(
    params: Params, paths: Paths, track: str, folders: Mapping[Path, str]
) -> dict[Path, Path | str]:
    """Return by artefact its ONNX model, or in one line why it has none; folders: of the
    artefacts, each with the model that it was made of.
    """
    home = paths.onnx(track)
    home.mkdir(parents=True, exist_ok=True)
    wanted = [
        Export(folder, _data(params, paths, track, model), home / f"{_key(folder)}.onnx")
        for folder, model in folders.items()
    ]
    for old in set(home.iterdir()) - {export.file for export in wanted}:
        old.unlink()
    found: dict[Path, Path | str] = {export.folder: export.file for export in wanted}
    todo = [export for export in wanted if not export.file.exists()]
    return found | _run(params, track, todo)


def _run(params: Params, track: str, todo: Sequence[Export]) -> dict[Path, Path | str]:
    """Export `todo` and return the reasons of those that failed."""
    refused: dict[Path, Path | str] = {}
    if not todo:
        return refused
    with (
        workers(params.run.workers) as pools,
        progress(f"{track}: export to ONNX", "point", (str(each.folder) for each in todo)) as bar,
    ):
        for export, outcome in run_lasting(pools, todo, write_onnx, params.track(track).seconds):
            if outcome.reason is not None:
                refused[export.folder] = outcome.reason
            bar.ended(str(export.folder))
    return refused


def _data(params: Params, paths: Paths, track: str, model: str) -> Path:
    return splits.folder_of(paths.data(track), params.track(track), model)


def write_onnx(export: Export) -> dict[str, Any]:
    """Write the ONNX model of an artefact."""
    # here, for it needs what a machine may lack, and a second to import
    from harness.latency.onnx_export import to_onnx

    files.write_bytes(
        export.file, to_onnx(export.folder, splits.TestSplit.read(export.data).images(1))
    )
    return {}


def write_point(
    params: Params, paths: Paths, track: str, method: str, point: str, file: Path
) -> int:
    """Write the ONNX model of a point into `file` and return its length in bytes; raise
    UserError for a point that there is not, or that has no ONNX model.
    """
    params.track(track), params.method(method)
    if (lacking := not_installed("onnxscript")) is not None:
        raise UserError(lacking)
    folder = paths.artefacts(track, method) / point
    if not folder.is_dir():
        raise unknown(
            f"point of {method} with an artefact here",
            point,
            [found.name for found in folder.parent.glob("[!.]*")],
        )
    # here, for it needs what a machine may lack
    from harness.latency.onnx_export import NotExported

    _refuse_other_weights(folder)
    try:
        model = next(
            name
            for name in sorted(params.track(track).models, key=len, reverse=True)
            if point.startswith(f"{name}_")
        )
        write_onnx(Export(folder, _data(params, paths, track, model), file))
    except NotExported as error:
        raise UserError(f"{method} {point} cannot be written as ONNX: {error}") from error
    return file.stat().st_size


def _refuse_other_weights(folder: Path) -> None:
    """Raise UserError unless the weights file of an artefact holds the tensors of its
    program, bit for bit: what is evaluated is what leaves the project.
    """
    counted = store.read(folder).program
    complete = torch.export.load(folder / store.PROGRAM)  # `store.read` has looked through it
    for stored, own in (
        (counted.state_dict, complete.state_dict),
        (counted.constants, complete.constants),
    ):
        for name, value in own.items():
            if isinstance(value, Tensor) and not torch.equal(stored[name], value):
                raise UserError(
                    f"artefact {folder.name}: weights file and program disagree on {name}: delete "
                    f"{folder} and run again"
                )


def _key(folder: Path) -> str:
    """Return what decides an ONNX model: the artefact, and the code and libraries that
    export it; raise UserError if the artefact is not there.
    """
    with files.reading(folder):
        parts = [
            hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in (store.PROGRAM, store.WEIGHTS)
        ]
    parts += [
        fingerprint.sources().hash("harness.latency.onnx_export"),
        *(importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript")),
    ]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:24]
