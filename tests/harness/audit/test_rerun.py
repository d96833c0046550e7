"""Running recorded points again: the sample, and what a stranger's numbers are
worth.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import yaml

from harness.audit.bundle import write_bundle
from harness.audit.rerun import Recorded, Sample, candidates, drawn, rerun, verdicts
from harness.run.compress import compress
from harness.run.paths import Paths
from harness.run.selection import Selection
from harness.run.train import train_track
from leaderboard.exchange.agreement import Rerun, Verification, agreement_of
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import load_params
from leaderboard.records.results import read_records
from leaderboard.records.schema import Measured
from tests.conftest import ROOT

NUMBERS = {
    "bytes": 1000,
    "parameters": 100,
    "macs": 1000,
    "effective_macs": 1000,
    "bit_operations": 1000,
}
IMAGES = 128  # of each split
LABELS = np.arange(200) % 10
WORK = {"images": 1, "steps": 1}


def measured(wrong=0, **changed):
    """Return a point that gets the first `wrong` images wrong, and its predictions."""
    predictions = np.where(np.arange(200) < wrong, (LABELS + 1) % 10, LABELS)
    about = {
        "id": "x",
        "model": "m",
        "setting": {},
        "seed": 0,
        "status": "ok",
        "accuracy": 1,
        "correct": 200 - wrong,
        "images": 200,
        "work": WORK,
    }
    return Measured(**(about | NUMBERS | changed)), predictions


@pytest.mark.parametrize(
    ("again", "verdict", "said"),
    [
        (measured(), "identical", ""),
        (measured(wrong=5), "within tolerance", "5 of 200 predictions"),
        (measured(bytes=1010), "within tolerance", "bytes 1010, recorded 1000"),
        (measured(macs=1005), "within tolerance", "macs 1005, recorded 1000"),
        (measured(bytes=1011), "different", "bytes 1011, recorded 1000"),
        (measured(macs=1006), "different", "macs 1006, recorded 1000"),
        (measured(parameters=101), "different", "parameters 101, recorded 100"),
        (measured(effective_macs=900), "different", "effective_macs 900, recorded 1000"),
        (measured(wrong=8), "different", "192 correct, recorded are 200 (p = 0.0078)"),  # 2 * 0.5^8
    ],
)
def test_two_runs_are_compared_by_the_rule(again, verdict, said):
    found = agreement_of(measured(), again, LABELS)
    assert (found.verdict, found.reason) == (verdict, said)


def test_a_sample_is_reproducible_and_of_the_size_asked_for():
    points = [
        Recorded(
            "m", Measured.model_validate(measured()[0].model_dump() | {"id": str(index)}), LABELS
        )
        for index in range(40)
    ]

    def ids(share, seed=0):
        return [recorded.point.id for recorded in drawn(points, Sample(Selection(), share, seed))]

    assert ids(0.25) == ids(0.25) != ids(0.25, seed=1) and len(ids(0.25)) == 10
    assert ids(1) == ids(100) == [str(index) for index in range(40)]
    assert len(ids(3)) == 3 and len(ids(0.001)) == 1


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Return (params, paths) of three methods run on one model that saw a few images,
    in a folder of their own.
    """
    root = tmp_path_factory.mktemp("recorded")
    content = yaml.safe_load((ROOT / "params.yaml").read_text()) | {
        "chains": {},
        "hardware": {},
        "hardware_on_request": {},
    }
    track = content["tracks"]["digits"]
    schedule = track["scratch"] | {"epochs": 1}
    track |= {
        "first": IMAGES,
        "calibration": 64,
        "scratch": schedule,
        "fine_tune": schedule,
        "models": {"mobilenet": track["models"]["mobilenet"]},
        "methods": {},
    }
    settings = {"dense": {}, "magnitude": {"sparsity": 0.5}, "rtn": {"bits": 8}}
    content |= {
        "tracks": {"digits": track},
        "methods": {name: {"settings": [setting]} for name, setting in settings.items()},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    params = load_params(root / "params.yaml")
    paths = Paths(root, params.version)
    train_track(params, paths, "digits")
    compress(params, paths, "digits")
    return params, paths


@pytest.mark.slow
def test_points_of_a_model_whose_weights_cannot_be_had_again_are_one_line(recorded, monkeypatch):
    params, paths = recorded
    record = read_records(paths.records("digits"), params.version, "digits").info
    passed_over = record.model_copy(update={"models": {}})
    monkeypatch.setattr("harness.audit.rerun.train_track", lambda *_: passed_over)
    with pytest.raises(UserError, match="weights of 'mobilenet' cannot be had here"):
        rerun(params, paths.records("digits"), "digits", Sample(Selection(), 1, 0))


def tamper(paths, method):
    """Claim a method that gets everything right, predictions and all."""
    labels = files.read_json(paths.records("digits") / "track.json")["test_labels"]
    content = files.read_json(paths.points("digits", method))
    for point in content["points"]:
        point |= {"correct": len(labels), "accuracy": 1.0}
    predictions = {}
    for point in content["points"]:
        predictions |= {
            point["id"]: np.array(labels, np.uint16),
            f"{point['id']}|confidence": np.ones(len(labels), np.float16),
            f"{point['id']}|rank": np.zeros(len(labels), np.uint16),
        }
    files.write_json(paths.points("digits", method), content)
    files.write_bytes(paths.predictions("digits", method), safetensors.numpy.save(predictions))


@pytest.mark.slow
def test_points_run_again_are_reproduced_and_a_tampered_one_is_contradicted(recorded, tmp_path):
    params, paths = recorded
    theirs = Paths(tmp_path / "theirs", params.version)
    shutil.copytree(paths.root / "results", theirs.root / "results")
    tamper(theirs, "rtn")
    bundle, file = tmp_path / "theirs.zip", paths.root / "params.yaml"
    write_bundle(params, theirs, file, "digits", bundle)
    command = [
        "check",
        "bundle",
        str(bundle),
        "--rerun",
        "1",
        "--results",
        str(tmp_path / "none"),
        "--params",
        str(file),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "shrinkmark", *command],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "2 reproduced, 1 contradicted" in done.stdout, (
        done.stdout + done.stderr
    )
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert (
        line.startswith("error: rtn mobilenet_bits=8_seed=0 is contradicted: ")
        and f"correct, recorded are {IMAGES}" in line
    )
    assert json.loads((tmp_path / "theirs.zip.labels.json").read_text())["points"] == {
        "dense": {"mobilenet_seed=0": "reproduced"},
        "magnitude": {"mobilenet_sparsity=0.5_seed=0": "reproduced"},
        "rtn": {"mobilenet_bits=8_seed=0": "contradicted"},
    }


def test_only_points_that_params_can_run_are_run_again(recorded):
    params, paths = recorded
    found = read_records(paths.records("digits"), params.version, "digits")
    assert {one.method for one in candidates(params, "digits", found, Selection())} == {
        "dense",
        "magnitude",
        "rtn",
    }
    assert {
        one.method
        for one in candidates(params, "digits", found, Selection(("rtn",), ("mobilenet",)))
    } == {"rtn"}
    without = params.model_copy(
        update={"methods": {name: plan for name, plan in params.methods.items() if name == "dense"}}
    )
    assert {one.method for one in candidates(without, "digits", found, Selection())} == {"dense"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": "v0"}, "version 'v0'"),
        ({"track": "other"}, "track 'other'"),
        ({"test_labels": []}, "0 test labels"),
    ],
)
def test_records_that_cannot_be_compared_are_one_line(recorded, tmp_path, changed, said):
    params, paths = recorded
    files.write_json(
        tmp_path / "track.json", files.read_json(paths.records("digits") / "track.json") | changed
    )
    with pytest.raises(UserError, match=said) as caught:
        rerun(params, tmp_path, "digits", Sample(Selection(), 1, 0))
    assert "\n" not in str(caught.value)


def test_a_dense_that_came_out_otherwise_is_told():
    point = Rerun(method="rtn", id="r", verdict="different", reason="bytes 3, recorded 2")
    lines = list(verdicts(Verification(dense={"vit": False, "mixer": True}, points=(point,))))
    assert lines == [
        "dense vit: other weights than recorded: points made from it may differ honestly",
        "rtn r: different: bytes 3, recorded 2",
        "1 points run again: 0 identical, 0 within tolerance, 1 different",
    ]
