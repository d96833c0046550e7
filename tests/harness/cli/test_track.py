"""A whole track in one command, as on a machine without DVC, and its rehearsal."""

import os
import subprocess
import sys

import pytest
import yaml

from harness.cli.lock import alone
from harness.cli.stages import run
from harness.cli.whole_track import BATCH, IMAGES, STEPS, run_track, shortened
from harness.run.paths import Paths
from harness.run.selection import Selection, selected
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import load_params
from tests.conftest import ROOT

# importing it would raise
WITHOUT_DVC = "import sys; sys.modules['dvc'] = None; from harness.cli.command import main; main()"


@pytest.fixture
def unmeasured(experiment):
    """The same without any hardware: nothing is timed."""
    _, paths = experiment
    file = paths.root / "params.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"hardware": {}}))
    return load_params(file), paths


@pytest.fixture
def experiment(small, tmp_path):
    """A part of the small experiment's params in a folder of its own."""
    params, paths = small
    content = yaml.safe_load((paths.root / "params.yaml").read_text())
    content["methods"] = {
        name: content["methods"][name]
        for name in ("dense", "magnitude", "rtn", "random_pruning", "slim")
    }
    content["methods"]["magnitude"]["settings"] = content["methods"]["magnitude"]["settings"][:1]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    return load_params(tmp_path / "params.yaml"), Paths(tmp_path, params.version)


def run_alone(paths, *options):
    """Run the track in a process of its own: pytest does not nest."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-c",
        WITHOUT_DVC,
        "run",
        "digits",
        "--params",
        str(paths.root / "params.yaml"),
        *options,
    ]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_one_command_without_dvc_makes_every_record_of_a_track_and_does_nothing_the_second_time(
    experiment,
):
    params, paths = experiment
    done = run_alone(paths)
    assert done.returncode == 0, done.stderr
    assert (
        "digits mobilenet: own recipe, 1 epochs, test accuracy" in done.stdout
        and "digits on cpu: latency measured, 0 failed" in done.stdout
    )
    for method in params.plans:
        content = files.read_json(paths.points("digits", method))
        assert content["points"] and "failed" not in {
            point["status"] for point in content["points"]
        }
    assert list(paths.latency("digits", "cpu").glob("*.json"))
    # timing runs pytest, which does not nest
    again = list(run_track(params.model_copy(update={"hardware": {}}), paths, "digits"))
    assert any(
        line.startswith("digits, all methods: 0 run, ") and line.endswith(" 0 failed")
        for line in again
    )


@pytest.mark.slow
def test_a_rehearsal_of_some_methods_runs_them_alone_and_leaves_nothing_behind(unmeasured):
    _, paths = unmeasured
    before = sorted(paths.root.rglob("*"))
    done = run_alone(paths, "--rehearse", "--method", "rtn", "--method", "slim")
    assert done.returncode == 0, done.stderr
    assert (
        all(f"digits {method}: " in done.stdout for method in ("rtn", "slim"))
        and "digits magnitude: " not in done.stdout
    )
    assert sorted(paths.root.rglob("*")) == before


def test_a_rehearsal_is_short_on_every_track_of_params(params):
    for track in params.tracks:
        short = shortened(params, track, "cpu")
        about = short.tracks[track]
        assert (
            list(short.tracks) == [track]
            and about.device == "cpu"
            and about.first == IMAGES
            and about.calibration <= IMAGES
        )
        for model in about.models:
            for schedule in (about.scratch_of(model), about.fine_tune_of(model)):
                assert int(schedule.epochs * (IMAGES // BATCH)) == STEPS
        assert list(short.plans) == list(params.plans) and all(
            len(method.settings) == 1 for method in short.plans.values()
        )
        assert yaml.safe_dump(short.model_dump())


def test_a_track_that_another_command_works_on_is_left_alone_and_can_be_rehearsed(
    unmeasured, monkeypatch, capsys
):
    _, paths = unmeasured
    before = sorted(paths.root.rglob("*"))
    monkeypatch.setattr("harness.cli.whole_track.rehearse_track", lambda *_: iter(["rehearsed"]))
    with alone(paths, "digits"):
        with pytest.raises(UserError, match="another command works on track 'digits'"):
            run("digits", params=paths.root / "params.yaml")
        run("digits", rehearse=True, params=paths.root / "params.yaml")
    assert sorted(paths.root.rglob("*")) == before and capsys.readouterr().out == "rehearsed\n"


@pytest.mark.slow
def test_a_part_of_a_track_goes_into_a_folder_of_its_own(unmeasured, tmp_path):
    params, paths = unmeasured
    before = sorted(paths.root.rglob("*"))
    refused = run_alone(paths, "--method", "rtn")
    assert (
        refused.returncode == 2
        and "name a folder for it with --into FOLDER" in refused.stderr
        and sorted(paths.root.rglob("*")) == before
    )
    done = run_alone(paths, "--method", "rtn", "--seeds", "1", "--into", str(tmp_path / "part"))
    assert done.returncode == 0, done.stderr
    records = Paths(tmp_path / "part", params.version).records("digits")
    assert {path.stem for path in (records / "points").iterdir()} == {"dense", "rtn"} and not (
        paths.root / "results"
    ).exists()


def test_a_selection_keeps_dense_and_the_order_of_params(params):
    several = params.track("digits").model_copy(update={"seeds": [0, 1, 2]})
    of_three = params.model_copy(update={"tracks": params.tracks | {"digits": several}})
    part = selected(of_three, "digits", Selection(("taylor__rtn", "rtn", "wanda"), ("vit",), 2))
    assert list(part.plans) == ["dense", "wanda", "rtn", "taylor__rtn"]
    assert list(part.track("digits").models) == ["vit"] and part.track("digits").seeds == [0, 1]
    assert selected(params, "digits", Selection()) == params
    for wrong, said in (
        (Selection(("wnda",)), "did you mean 'wanda'"),
        (Selection((), ("vitt",)), "did you mean 'vit'"),
    ):
        with pytest.raises(UserError, match=said):
            selected(params, "digits", wrong)
