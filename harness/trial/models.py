"""The compressed models of a trial as folders to take away: the graph without tensors,
the file of their weights, and a script that runs them on one image.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from harness.data import dataset
from harness.data.transform import Transform, transform_of
from harness.latency.onnx_files import exported
from harness.latency.runtimes import not_installed
from harness.point.store import WEIGHTS, write_graph
from harness.run.paths import Paths
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import Params
from leaderboard.records.results import read_record
from leaderboard.records.schema import Measured, MethodPoints

LOAD = '''"""What one image shows: python load.py IMAGE. Needs shrinkmark, timm and Pillow."""

import json
import sys
from pathlib import Path

import shrinkmark
import torch
from PIL import Image

here = Path(__file__).parent
about, model = json.loads((here / "about.json").read_text()), shrinkmark.load(here)
from timm.data import create_transform  # noqa: E402  (imports beside a CPU-only torch only now)

image = create_transform(**about["transform"])(Image.open(sys.argv[1]).convert("RGB"))
with torch.inference_mode():
    shares = model(image[None]).softmax(1)[0]
for share, index in zip(*shares.topk(min(5, len(shares)))):
    print(f"{float(share):.3f} {about['classes'][int(index)] if about['classes'] else int(index)}")
'''


ONNX = "model.onnx"


@dataclass(frozen=True)
class Delivered:
    """The folder of every model by its place among the track's artefacts, and a line on
    each that has no ONNX file where one was asked for.
    """

    folders: dict[Path, Path]
    without_onnx: tuple[str, ...] = ()


def deliver_all(params: Params, paths: Paths, track: str) -> Delivered:
    """Write the model of every measured point of a track into a folder of its own below
    models/.
    """
    about = params.track(track)
    classes = list(dataset(about.dataset, about.data).class_names())
    folders = {}
    for method in params.plans:
        if not paths.points(track, method).exists():  # cut off before
            continue
        for point in read_record(paths.points(track, method), MethodPoints).points:
            if isinstance(point, Measured):
                artefact = paths.artefacts(track, method) / point.id
                setting = (f"{key}={value}" for key, value in point.setting.items())
                folder = paths.root / "models" / "-".join([method, *setting]).replace("/", "-")
                deliver(artefact, point, transform_of(about, point.model), classes, folder)
                folders[artefact] = folder
    return Delivered(folders)


def add_onnx(params: Params, paths: Paths, track: str, delivered: Delivered) -> Delivered:
    """Write model.onnx beside every model that has one; raise UserError if what exports
    it is not installed.
    """
    if (lacking := not_installed("onnxscript")) is not None:
        raise UserError(lacking)
    (model,) = params.track(track).models
    found = exported(params, paths, track, dict.fromkeys(delivered.folders, model))
    notes = []
    for artefact, made in found.items():
        folder = delivered.folders[artefact]
        if isinstance(made, Path):
            shutil.copy(made, folder / ONNX)
        else:
            notes.append(f"no {ONNX} of {folder.name}: {made}")
    return replace(delivered, without_onnx=tuple(notes))


def deliver(
    artefact: Path, point: Measured, transform: Transform, classes: list[str], folder: Path
) -> None:
    """Write the artefact of a point into `folder`, ready to use; what stood there goes."""
    if transform.mean is None or transform.std is None:
        raise ValueError("an image folder has no moments of train")
    if folder.exists():
        if _held(folder) == point.fingerprint:
            return
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_graph(artefact, folder)
    shutil.copy(artefact / WEIGHTS, folder / WEIGHTS)
    about = {
        "model": point.model,
        "setting": point.setting,
        "fingerprint": point.fingerprint,
        "accuracy": point.accuracy,
        "bytes": point.bytes,
        "macs": point.macs,
        "transform": {
            "input_size": (3, *transform.size),
            "is_training": False,
            "interpolation": transform.interpolation,
            "crop_pct": transform.crop,
            "crop_mode": transform.crop_mode,
            "mean": transform.mean,
            "std": transform.std,
        },
        "classes": classes,
    }
    files.write_text(folder / "about.json", json.dumps(about, indent=1) + "\n")
    files.write_text(folder / "load.py", LOAD)


def _held(folder: Path) -> str:
    """Return the fingerprint of the point that a folder holds, "" if it is not whole."""
    if not (folder / "load.py").exists():  # which is written last
        return ""
    return str(files.read_json(folder / "about.json").get("fingerprint", ""))
