"""Whoever reads a damaged file of ours is told so in one line that names it: the reader
itself refuses it, so that no caller can forget to.
"""

import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from harness.data.splits import Learn, TestSplit
from harness.latency import onnx_files
from harness.latency.plan import graph
from harness.latency.runtimes.semi_structured import has_fitting
from harness.point import predictions, store
from harness.run import point_folder
from leaderboard.records.errors import UserError
from leaderboard.records.results import read_predictions, read_record
from leaderboard.records.schema import CostsFile, MethodPoints, TrackInfo

DATA, POINT, RECORDS = (
    "artefacts/digits/data/8x8-bilinear-1-center-train",
    "artefacts/digits/points/rtn/mixer_bits=4_seed=0",
    "results/v1/digits",
)
PROGRAM, WEIGHTS = f"{POINT}/program.pt2", f"{POINT}/weights.safetensors"
READERS = {  # of a file
    "learn split": (
        f"{DATA}/learn.safetensors",
        lambda file: Learn.read(file.parent, torch.device("cpu")),
    ),
    "test split": (f"{DATA}/test.safetensors", lambda file: TestSplit.read(file.parent)),
    "predictions of a point": (
        f"{POINT}/predictions.safetensors",
        lambda file: predictions.read(file.parent),
    ),
    "record of a point": (f"{POINT}/record.json", lambda file: point_folder.read(file.parent)),
    "artefact by its program": (PROGRAM, lambda file: store.read(file.parent)),
    "artefact by its weights": (WEIGHTS, lambda file: store.read(file.parent)),
    "weights": (WEIGHTS, lambda file: store.read_weights(file.parent)),
    "weights that may be sparse": (WEIGHTS, lambda file: has_fitting(file.parent)),
    "graph": (PROGRAM, lambda file: graph(file.parent)),
    "predictions of a method": (f"{RECORDS}/predictions/rtn.safetensors", read_predictions),
    "records of a method": (
        f"{RECORDS}/points/rtn.json",
        lambda file: read_record(file, MethodPoints),
    ),
    "record of a track": (f"{RECORDS}/track.json", lambda file: read_record(file, TrackInfo)),
    "costs": (f"{RECORDS}/costs/f00d.json", lambda file: read_record(file, CostsFile)),
}
FOREIGN = {
    ".safetensors": save({"x": np.zeros(3, np.float32)}),
    ".json": b'{"x": 1}',
    ".pt2": b"PK\x05\x06" + bytes(18),
}


def gone(file):
    file.unlink()


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def folder(file):
    file.unlink()
    file.mkdir()


def foreign(file):
    file.write_bytes(FOREIGN[file.suffix])


@pytest.mark.parametrize("damage", [gone, cut, empty, folder, foreign])
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(tiny_project, tmp_path, name, damage):
    where, read = READERS[name]
    file = shutil.copytree(tiny_project, tmp_path / "project") / where
    if damage is foreign and name == "predictions of a method":
        return  # what its arrays are called is known to its records alone
    assert read(file) is not None
    damage(file)
    with pytest.raises(UserError) as refused:
        read(file)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 1000
    assert str(file) in str(refused.value) or str(file.parent) in str(refused.value)


@pytest.mark.parametrize("name", ["program.pt2", "weights.safetensors"])
def test_an_artefact_that_is_not_there_is_not_exported(tiny_project, tmp_path, name):
    point = shutil.copytree(tiny_project / POINT, tmp_path / "point")
    assert onnx_files._key(point)
    (point / name).unlink()
    with pytest.raises(UserError, match="point cannot be read"):
        onnx_files._key(point)
