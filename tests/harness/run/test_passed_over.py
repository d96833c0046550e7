"""A model whose weights cannot be fetched is passed over in one line by all that works on
its track, and joins when they can.
"""

import copy
import hashlib

import huggingface_hub
import pytest
import safetensors.torch
import typer
import yaml

from benchmarks.testbed.tiny_project import PARAMS
from harness.audit.check import check_results
from harness.cli import check, stages, tables
from harness.models.build import build
from harness.run import train
from harness.run.compress import compress
from harness.run.paths import Paths
from harness.run.selection import at_hand
from harness.run.server.pool import Outcome
from harness.run.train import train_track
from leaderboard.records.errors import UserError
from leaderboard.records.params import ModelParams, load_params
from leaderboard.records.passed_over import lines, passed_over

MIXER = PARAMS["tracks"]["digits"]["models"]["mixer"]
FETCHED = {
    "tagged": {"timm": "resnet10t", "weights": "timm"},
    "hub": MIXER | {"weights": "hf-hub:a/b"},
}


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def experiment(folder, models):
    """Write the tiny experiment with other models, and return it with its paths."""
    whole = copy.deepcopy(PARAMS)
    whole["tracks"]["digits"] |= {"models": models, "methods_on": list(models)}
    (folder / "params.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
    return load_params(folder / "params.yaml"), Paths(folder, "v1")


def put_on_hub(folder):
    """Put weights of a/b where the hub's loader keeps what it has fetched."""
    commit, home = hashlib.sha1(b"main").hexdigest(), folder / "hub" / "models--a--b"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots" / commit).mkdir(parents=True)
    state = build(ModelParams(**MIXER), 1, 10).state_dict()
    safetensors.torch.save_file(state, home / "snapshots" / commit / "model.safetensors")


def test_the_others_run_and_it_joins_when_its_weights_can_be_had(tmp_path, monkeypatch):
    params, paths = experiment(tmp_path, {**FETCHED, "mixer": MIXER})
    made = train_track(params, paths, "digits")
    assert list(made.models) == ["mixer"]
    assert passed_over(params, "digits", made) == ["tagged", "hub"]
    (folder,) = paths.data("digits").iterdir()
    assert folder.name.startswith("8x8-"), "no images are made for what is passed over"
    done = compress(params, paths, "digits")
    assert (done.run, done.failed) == (5, 0)
    assert not [line for line in check_results(params, paths) if "no latency" not in line]
    assert str(at_hand(params, "digits", made).plan("digits", "rtn").models) == "['mixer']"

    def in_this_process(pool, jobs, steps, seconds):  # workers know another cache
        return ((job, [Outcome(steps[0](job), None)]) for job in jobs)

    put_on_hub(tmp_path)
    monkeypatch.setattr(train, "run_all", in_this_process)
    again = train_track(params, paths, "digits")
    assert list(again.models) == ["hub", "mixer"] and again.models["mixer"] == made.models["mixer"]
    assert compress(params, paths, "digits").run == 5
    assert not [line for line in check_results(params, paths) if "no latency" not in line]


def test_every_command_says_so_in_one_line_with_what_to_do(tmp_path, capsys):
    experiment(tmp_path, {**FETCHED, "mixer": MIXER})
    file = tmp_path / "params.yaml"
    for command in (
        lambda: stages.train("digits", params=file),
        lambda: stages.compress("digits", params=file),
        lambda: tables.write_tables(results=tmp_path / "results", params=file),
    ):
        capsys.readouterr()
        command()
        found = [line for line in capsys.readouterr().err.splitlines() if "passed over" in line]
        assert found == [
            "digits: passed over, for their weights are not here and train found no network to "
            "fetch them: tagged (resnet10t, timm), hub (mixer_small, hf-hub:a/b): run `shrinkmark "
            "train digits` where there is one, or name files by `weights`"
        ]
    with pytest.raises(typer.Exit):  # no latency yet
        check.check_results(params=file)
    assert "passed over, for their weights are not here" in capsys.readouterr().err


def test_where_no_model_is_left_it_is_an_error_with_the_reason(tmp_path):
    params, paths = experiment(tmp_path, FETCHED)
    with pytest.raises(
        UserError, match=r"weights timm cannot be had \(.*offline.*name a file"
    ) as said:
        train_track(params, paths, "digits")
    assert "\n" not in str(said.value) and not paths.data("digits").exists()


def test_a_file_that_is_missing_stays_an_error(tmp_path):
    params, paths = experiment(tmp_path, {"gone": MIXER | {"weights": "gone.pt"}, "mixer": MIXER})
    with pytest.raises(UserError, match=r"dense model 'gone' .* no weights .*gone.pt"):
        train_track(params, paths, "digits")


def test_a_record_that_lacks_a_model_of_another_kind_is_behind(tmp_path):
    params, paths = experiment(tmp_path, {"mixer": MIXER})
    made = train_track(params, paths, "digits")
    more, _ = experiment(tmp_path, {"mixer": MIXER, "second": MIXER})
    assert list(lines(more, "digits", made)) == []
    with pytest.raises(UserError, match="lacks the model 'second': run the train stage"):
        compress(more, paths, "digits")
