"""Stages on a small experiment: what is stored, what is run again and what is not, and
what damage does.
"""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import safetensors.numpy
import yaml

from benchmarks.testbed.ray_nodes import driver
from harness.audit.check import check_results
from harness.data import digits
from harness.latency.measure import measure
from harness.run import costs, fingerprint
from harness.run.compress import Ran, compress
from harness.run.point_folder import made_of, temporary
from harness.run.server.pool import Outcome
from harness.run.train import train_track
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import Params
from leaderboard.records.results import read_record
from leaderboard.records.schema import CostsFile
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def ran(small):
    """Run all methods of the small experiment once."""
    params, paths = small
    return (
        params,
        paths,
        {method: compress(params, paths, "digits", [method]) for method in params.plans},
    )


def measure_alone(paths, hardware="cpu", file="params.yaml"):
    """Measure in a process of its own, for pytest does not nest, and return the report.
    What the environment says of this run (as xdist's worker) and asks of any pytest is
    none of the benchmark's business.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "--no-such-option"}
    command = [
        sys.executable,
        "-m",
        "shrinkmark",
        "measure",
        "digits",
        hardware,
        "--params",
        str(paths.root / file),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (report,) = paths.latency("digits", hardware).iterdir()
    return json.loads(report.read_text())


@pytest.fixture(scope="module")
def timed(ran):
    """Measure the small experiment once and return the report."""
    return measure_alone(ran[1])


def points(paths, method):
    return files.read_json(paths.points("digits", method))["points"]


def test_every_point_is_recorded_with_all_its_costs(ran):
    _, paths, summaries = ran
    (dense,) = points(paths, "dense")
    assert summaries["random_pruning"].run == 2 and summaries["magnitude"].run == 2
    for record in points(paths, "magnitude"):
        assert (
            record["bytes"] < dense["bytes"]
            and record["macs"] == dense["macs"] > record["effective_macs"]
        )
        assert record["work"]["images"] == 64 and record["work"]["steps"] == 0
    (rtn,) = points(paths, "rtn")
    assert (
        rtn["bytes"] < dense["bytes"]
        and rtn["bit_operations"] < dense["bit_operations"] == dense["macs"] * 32 * 32
    )
    (file,) = paths.costs("digits").iterdir()
    # other tests ran others
    spent = {
        method: found
        for method, found in read_record(file, CostsFile).points.items()
        if method in summaries
    }
    measured = {
        method: {
            point["id"]: point["fingerprint"]
            for point in points(paths, method)
            if point["status"] == "ok"
        }
        for method in summaries
    }
    assert {
        method: {name: one.fingerprint for name, one in found.items()}
        for method, found in spent.items()
    } == {method: found for method, found in measured.items() if found}
    assert all(
        one.seconds > 0 and one.export > 0 and one.evaluate > 0 for one in spent["slim"].values()
    )


def test_epochs_of_a_methods_own_are_what_it_trains_and_what_its_file_says(ran):
    _, paths, _ = ran
    (slim,) = points(paths, "slim")
    assert (
        slim["work"]["steps"] == 4
        and files.read_json(paths.points("digits", "slim"))["method"]["scratch_epochs"] == 0.25
    )


@pytest.mark.slow
def test_a_sweep_runs_the_points_of_all_methods_and_the_stages_then_collect_the_same(ran, tmp_path):
    params, paths, _ = ran
    swept = type(paths)(tmp_path, paths.version)
    shutil.copytree(paths.records("digits"), swept.records("digits"))
    for folder in ("data", "dense"):
        shutil.copytree(
            paths.root / "artefacts" / "digits" / folder, tmp_path / "artefacts" / "digits" / folder
        )
    done = compress(params, swept, "digits")
    assert (
        done.reused == 0
        and done.failed == 0
        and done.run == sum(len(points(paths, method)) for method in params.plans)
    )
    for method in params.plans:
        collected = compress(params, swept, "digits", [method])
        assert collected.run == 0, "all stand"
        assert (
            swept.predictions("digits", method).read_bytes()
            == paths.predictions("digits", method).read_bytes()
        )
        assert (
            swept.points("digits", method).read_bytes()
            == paths.points("digits", method).read_bytes()
        )
    assert compress(params, swept, "digits").run == 0


def test_a_sweep_of_some_methods_leaves_all_others_as_they_are(ran, tmp_path):
    params, paths, _ = ran
    swept = type(paths)(tmp_path, paths.version)
    shutil.copytree(paths.root, tmp_path, dirs_exist_ok=True)
    left = swept.artefacts("digits", "magnitude") / ".mobilenet_sparsity=0.5_seed=0.tmp"
    left.mkdir()  # another machine runs this point on the same shared folder
    shutil.rmtree(swept.artefacts("digits", "rtn"))
    done = compress(params, swept, "digits", ["dense", "rtn"])
    assert (done.run, done.reused) == (1, 1) and left.exists()


@pytest.mark.slow
def test_two_machines_on_one_shared_folder_sweep_other_methods_at_the_same_time(ran, tmp_path):
    params, paths, _ = ran
    shared = type(paths)(tmp_path / "shared", paths.version)
    for folder in ("artefacts/digits/data", "artefacts/digits/dense"):
        shutil.copytree(paths.root / folder, shared.root / folder)
    shared.records("digits").mkdir(parents=True)
    shutil.copy(paths.records("digits") / "track.json", shared.records("digits"))
    shutil.copy(paths.root / "params.yaml", shared.root)
    other = tempfile.mkdtemp()  # not in tmp_path, which is too long for the name of a socket
    first = driver(ROOT, shared.root, None, "--method", "magnitude", "--method", "random_pruning")
    # locks are a machine's own
    second = driver(ROOT, shared.root, None, "--method", "slim", "--method", "rtn", TMPDIR=other)
    assert "4 run, 0 stood, 0 skipped, 0 failed" in first.communicate(timeout=240)[0]
    assert "2 run, 0 stood, 0 skipped, 0 failed" in second.communicate(timeout=240)[0]
    compress(params, shared, "digits")
    assert all(
        shared.predictions("digits", method).read_bytes()
        == paths.predictions("digits", method).read_bytes()
        for method in params.plans
    )


def skipped(paths, todo):
    """Return what a sweep gets of points that are all skipped."""
    for point, wanted in todo:
        record = made_of(point, [Outcome({"status": "skipped", "reason": "x"}, None)], wanted)
        yield Ran(point, record, costs.this_machine(), temporary(paths, point))


def test_a_sweep_begins_with_what_took_longest_and_with_what_was_never_run(
    ran, tmp_path, monkeypatch
):
    params, paths, _ = ran
    swept, order = type(paths)(tmp_path, paths.version), []
    shutil.copytree(paths.records("digits"), swept.records("digits"))
    (file,) = swept.costs("digits").iterdir()
    content = files.read_json(file)
    content["points"]["magnitude"]["mobilenet_sparsity=0.9_seed=0"]["seconds"] = 1e6
    del content["points"]["rtn"]
    files.write_json(file, content)
    monkeypatch.setattr(
        "harness.run.compress._run",
        lambda params, paths, todo, title: order.extend(todo) or skipped(paths, todo),
    )
    # whose points are skipped, and cost nothing
    compress(
        params, swept, "digits", [method for method in params.plans if method != "layer_collapse"]
    )
    names = [point.name for point, _ in order]
    assert names[:2] == [
        "digits rtn mobilenet_bits=4_seed=0",
        "digits magnitude mobilenet_sparsity=0.9_seed=0",
    ]
    seconds = costs.seconds_of(paths, ["digits"])
    assert [seconds[name] for name in names[2:]] == sorted(
        (seconds[name] for name in names[2:]), reverse=True
    )


def test_the_dense_point_repeats_the_accuracy_of_the_train_stage(ran):
    _, paths, _ = ran
    record = files.read_json(paths.records("digits") / "track.json")
    assert points(paths, "dense")[0]["accuracy"] == pytest.approx(
        record["models"]["mobilenet"]["test_accuracy"], abs=0.002
    )


def test_stored_predictions_give_the_recorded_accuracy(ran):
    _, paths, _ = ran
    labels = np.array(files.read_json(paths.records("digits") / "track.json")["test_labels"])
    predictions = safetensors.numpy.load(paths.predictions("digits", "magnitude").read_bytes())
    for record in points(paths, "magnitude"):
        assert (predictions[record["id"]] == labels).mean() == record["accuracy"]


def test_a_method_that_skips_a_model_is_a_row_with_its_reason(ran):
    _, paths, summaries = ran
    assert summaries["layer_collapse"].skipped == 2
    assert {record["status"] for record in points(paths, "layer_collapse")} == {"skipped"}
    assert all(record["reason"] for record in points(paths, "layer_collapse"))


def test_nothing_is_run_twice(ran):
    params, paths, _ = ran
    before = paths.points("digits", "magnitude").read_bytes()
    summary = compress(params, paths, "digits", ["magnitude"])
    assert (summary.run, summary.reused) == (0, 2) and paths.points(
        "digits", "magnitude"
    ).read_bytes() == before


def test_a_new_setting_runs_alone_and_a_dropped_one_leaves_nothing_behind(ran, with_methods):
    params, paths, _ = ran
    other = with_methods({"magnitude": [{"sparsity": 0.5}, {"sparsity": 0.7}]})
    summary = compress(other, paths, "digits", ["magnitude"])
    assert (summary.run, summary.reused) == (1, 1)
    assert not (paths.artefacts("digits", "magnitude") / "mobilenet_sparsity=0.9_seed=0").exists()
    assert compress(params, paths, "digits", ["magnitude"]).run == 1


@pytest.mark.parametrize(
    "damaged", ["weights.safetensors", "record.json", "predictions.safetensors"]
)
def test_a_truncated_artefact_is_made_again(ran, damaged):
    params, paths, _ = ran
    file = paths.artefacts("digits", "rtn") / "mobilenet_bits=4_seed=0" / damaged
    whole, before = file.read_bytes(), points(paths, "rtn")[0]
    file.write_bytes(whole[:-7])
    assert compress(params, paths, "digits", ["rtn"]).run == 1
    assert points(paths, "rtn")[0] == before


def test_half_written_folders_of_a_killed_run_are_removed(ran):
    params, paths, _ = ran
    left = paths.artefacts("digits", "dense") / ".mobilenet_seed=0.tmp"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    compress(params, paths, "digits", ["dense"])
    assert not left.exists()


def test_a_second_train_stage_trains_nothing(ran, capsys):
    params, paths, _ = ran
    before = paths.records("digits").joinpath("track.json").read_bytes()
    train_track(params, paths, "digits")
    assert (
        paths.records("digits").joinpath("track.json").read_bytes() == before
        and "train dense" not in capsys.readouterr().err
    )


def test_other_data_makes_every_result_anew(ran, tmp_path, monkeypatch):
    params, paths, _ = ran
    for folder in ("artefacts", "results"):
        shutil.copytree(paths.root / folder, tmp_path / folder)
    copied = type(paths)(tmp_path, paths.version)
    load = digits.Digits.load

    def other(self):
        source = load(self)
        return dataclasses.replace(source, images=source.images[:, :, ::-1].copy())

    monkeypatch.setattr(digits.Digits, "load", other)
    before, after = (
        files.read_json(paths.records("digits") / "track.json"),
        train_track(params, copied, "digits"),
    )
    assert after.content_hash != before["content_hash"]
    assert (
        after.models["mobilenet"].weights_sha256 != before["models"]["mobilenet"]["weights_sha256"]
    )
    assert any(
        "results are of other data than track.json" in line
        for line in check_results(params, copied)
    )
    assert compress(params, copied, "digits", ["rtn"]).run == 1
    assert files.read_json(copied.points("digits", "rtn"))["content_hash"] == after.content_hash


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "cannot be read"), (b"PK\x03\x04 not ours", "cannot be read")]
)
def test_truncated_or_foreign_dense_weights_are_a_failed_row_that_says_what_to_do(
    ran, with_methods, content, reason
):
    _, paths, _ = ran
    file = paths.dense("digits") / "mobilenet.safetensors"
    whole = file.read_bytes()
    try:
        file.write_bytes(content)
        compress(
            with_methods({"outside_scale": [{"factor": 0.25}]}), paths, "digits", ["outside_scale"]
        )
    finally:
        file.write_bytes(whole)
    (record,) = points(paths, "outside_scale")
    assert (
        record["status"] == "failed"
        and reason in record["reason"]
        and "run the train stage again" in record["reason"]
    )


def test_results_of_another_version_are_refused(ran):
    params, paths, _ = ran
    newer = Params.model_validate(params.model_dump() | {"version": "v999"})
    with pytest.raises(UserError, match=f"version {params.version}"):
        compress(newer, paths, "digits", ["dense"])


def test_a_track_without_records_says_which_stage_writes_them(ran, tmp_path):
    params, paths, _ = ran
    with pytest.raises(
        UserError, match=r"cannot read .*track.json: No such file or directory; run `dvc repro`"
    ):
        compress(params, type(paths)(tmp_path, paths.version), "digits", ["dense"])


def test_latency_is_measured_interleaved_with_dense_and_not_for_masked_points(ran, timed):
    _, paths, _ = ran
    assert [row["extra_info"]["method"] for row in timed["benchmarks"]] == [
        "dense",
        "int8_static",
        "rtn",
        "slim",
    ], "rtn: the control"
    assert [row["method"] for row in timed["same_program"]] == ["magnitude__rtn"], (
        "the same program with other weights"
    )
    (dense,) = points(paths, "dense")
    assert all(
        row["timed"] == {"method": "dense", "id": dense["id"], "fingerprint": dense["fingerprint"]}
        for row in timed["same_program"]
    )
    for row in timed["benchmarks"]:
        assert len(row["stats"]["data"]) == 5 and len(row["extra_info"]["dense"]) == 6
        assert (
            min(row["stats"]["data"]) > 0
            and min(row["extra_info"]["dense"]) > 0
            and row["extra_info"]["peak_mib"] >= 0
        )
    assert {"cpu", "flags", "cores", "governor", "threads", "torch", "fingerprint"} <= set(
        timed["machine_info"]["shrinkmark"]
    )


@pytest.mark.slow
def test_a_profile_of_onnxruntime_is_measured_on_exported_models_that_agree(ran):
    params, paths, _ = ran
    content = params.model_dump()
    content["hardware"]["cpu_ort"] = content["hardware"]["cpu"] | {"runtime": "onnxruntime"}
    (paths.root / "ort.yaml").write_text(yaml.safe_dump(content))
    report = measure_alone(paths, "cpu_ort", "ort.yaml")
    rows = {row["extra_info"]["method"]: row["extra_info"] for row in report["benchmarks"]}
    assert {"dense", "rtn", "slim"} <= set(rows) and set(rows) | {
        row["method"] for row in report["failed"]
    } == {
        "dense",
        "rtn",
        "slim",
        "int8_static",
    }
    assert all(
        row["agreement"]["images"] == 500 and row["agreement"]["same"] >= 485
        for row in rows.values()
    )
    assert all(
        "it predicts the artefact's class for 48" in row["reason"] for row in report["failed"]
    ), "a model of one epoch, whose classes lie close"
    assert report["machine_info"]["shrinkmark"]["runtime"].startswith("onnxruntime ")


def test_a_profile_that_this_machine_cannot_serve_changes_nothing(ran):
    params, paths, _ = ran
    content = params.model_dump()
    content["hardware"]["elsewhere"] = content["hardware"]["cpu"] | {"match": "Cray"}
    done = measure(Params.model_validate(content), paths, "digits", "elsewhere")
    assert "the profile is for 'Cray'" in done.skipped and done.file is None
    assert list(paths.latency("digits", "elsewhere").iterdir()) == []


def test_a_batch_larger_than_the_test_split_is_refused(ran):
    params, paths, _ = ran
    content = params.model_dump()
    content["hardware"]["cpu"]["batches"] = [541]
    with pytest.raises(UserError, match="batch of 541"):
        measure(Params.model_validate(content), paths, "digits", "cpu")


@pytest.mark.usefixtures("timed")
def test_committed_results_are_told_apart_from_those_of_other_code_params_or_predictions(
    ran, tmp_path, monkeypatch
):
    params, paths, _ = ran
    shutil.copytree(paths.root / "results", tmp_path / "results")
    paths = type(paths)(tmp_path, paths.version)
    for stray in ("outside_scale", "outside_raises"):
        paths.points("digits", stray).unlink(missing_ok=True)
    for path in sorted(paths.points("digits", "x").parent.glob("outside_*")):
        path.unlink()
    assert check_results(params, paths) == []
    content = params.model_dump()
    content["methods"]["rtn"]["settings"] = [{"bits": 3}]
    assert any(
        "points differ from params.yaml" in line
        for line in check_results(Params.model_validate(content), paths)
    )
    record = files.read_json(paths.points("digits", "rtn"))
    record["points"][0]["correct"] += 1
    files.write_json(paths.points("digits", "rtn"), record)
    assert any(
        "differs from its stored predictions" in line for line in check_results(params, paths)
    )
    monkeypatch.setattr(fingerprint, "method_hash", lambda name: "other source")
    assert any("not made by this code" in line for line in check_results(params, paths))


@pytest.mark.slow
def test_an_interrupted_stage_keeps_its_finished_points_and_goes_on_from_there(ran, with_methods):
    _, paths, _ = ran
    settings = [{"sparsity": round(0.01 * step, 2)} for step in range(1, 9)]
    content = with_methods({"magnitude": settings}).model_dump()
    file = paths.root / "interrupted.yaml"
    file.write_text(yaml.safe_dump(content))
    command = [
        sys.executable,
        "-m",
        "shrinkmark",
        "compress",
        "digits",
        "magnitude",
        "--params",
        str(file),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    home, deadline = paths.artefacts("digits", "magnitude"), time.monotonic() + 120
    # not those of earlier tests
    while (
        len(list(home.glob("mobilenet_sparsity=0.0*/record.json"))) < 3
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (
        process.returncode == 130
        and "interrupted: finished points are kept; go on with: shrinkmark compress digits"
        in errors
        and "Traceback" not in errors
    )
    finished = len(list(home.glob("mobilenet_sparsity=0.0*/record.json")))
    again = compress(Params.model_validate(content), paths, "digits", ["magnitude"])
    assert 3 <= finished < 8 and (again.run, again.reused, again.failed) == (
        8 - finished,
        finished,
        0,
    )


def test_the_committed_latency_file_names_no_path_and_no_host(ran, timed):
    _, paths, _ = ran
    text = json.dumps(timed)
    assert (
        str(paths.root) not in text
        and str(ROOT) not in text
        and '"node"' not in text
        and '"project"' not in text
    )
