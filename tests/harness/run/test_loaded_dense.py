"""A dense model that is loaded and not trained: its file's hash is in the record and
decides whether it stands.
"""

import copy
import hashlib

import pytest
import safetensors.torch
import torch

from benchmarks.testbed.tiny_project import PARAMS
from harness.audit.check import check_results
from harness.models.build import build
from harness.run import train
from harness.run.paths import Paths
from harness.run.train import train_track
from leaderboard.records.errors import UserError
from leaderboard.records.params import ModelParams, Params


def experiment(folder, **others):
    """Return the tiny experiment with its dense model from a file, by its absolute name:
    workers know the data folder that was set when their server began.
    """
    whole = copy.deepcopy(PARAMS)
    file = str(folder / "mixer.safetensors")
    whole["tracks"]["digits"]["models"]["mixer"] |= {"weights": file, **others}
    return Params.model_validate(whole)


def write(folder):
    """Write other weights than before, and return the sha256 of their file."""
    mixer = ModelParams(**PARAMS["tracks"]["digits"]["models"]["mixer"])
    content = safetensors.torch.save(build(mixer, 1, 10).state_dict())
    (folder / "mixer.safetensors").write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def dense_findings(params, paths):
    return [line for line in check_results(params, paths) if "dense model" in line]


def test_loaded_dense_stands_until_its_file_is_another(tmp_path, monkeypatch):
    params, paths = experiment(tmp_path), Paths(tmp_path, "v1")
    torch.manual_seed(1)
    first = write(tmp_path)
    made = train_track(params, paths, "digits").models["mixer"]
    assert (made.dense, made.source_sha256) == ("weights mixer.safetensors", first)
    assert made.from_reference and dense_findings(params, paths) == []
    second = write(tmp_path)
    assert second != first
    again = train_track(params, paths, "digits").models["mixer"]
    assert again.source_sha256 == second and again.weights_sha256 != made.weights_sha256
    assert again.fingerprint != made.fingerprint
    monkeypatch.setattr(train, "run_all", None)  # what stands is not made again
    assert train_track(params, paths, "digits").models["mixer"] == again
    (tmp_path / "mixer.safetensors").unlink()
    assert train_track(params, paths, "digits").models["mixer"] == again, "its file may go"
    assert dense_findings(params, paths) == []
    pinned = experiment(tmp_path, sha256=first)
    assert len(dense_findings(pinned, paths)) == 1, "it was made of another file than is pinned"


def test_the_whole_line_of_what_cannot_be_loaded_reaches_the_reader(tmp_path):
    names = [f"{'a_long_name_of_a_tensor.' * 3}{number}" for number in range(3)]
    safetensors.torch.save_file(
        {name: torch.zeros(1) for name in names}, tmp_path / "mixer.safetensors"
    )
    with pytest.raises(UserError) as error:
        train_track(experiment(tmp_path), Paths(tmp_path, "v1"), "digits")
    line = str(error.value)
    assert line.startswith("dense model 'mixer' of track 'digits' could not be made: weights ")
    assert line.endswith("correct `timm` and `args`") and all(name in line for name in names)
