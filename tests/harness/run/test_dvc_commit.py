"""DVC takes note of all that a sweep wrote, in one go."""

import subprocess
import sys

import pytest
import yaml
from dvc.repo import Repo

from harness.dvc_commit import commit
from leaderboard.records.errors import UserError

STAGES = {
    "compress": {
        "matrix": {"track": ["digits", "other"], "method": ["dense", "rtn"]},
        "cmd": "exit 1",
        "outs": ["points/${item.track}-${item.method}"],
    },
    "chain": {"matrix": {"track": ["digits"], "chain": ["taylor__rtn"]}, "cmd": "exit 1", "outs": ["points/${item.track}-${item.chain}"]},
    "measure": {"cmd": "exit 1", "deps": ["points"], "outs": ["latency"]},
}


@pytest.fixture
def of_two(params):
    """Return params with two methods and a chain."""
    methods = {name: params.methods[name] for name in ("dense", "rtn")}
    return params.model_copy(update={"methods": methods, "chains": {"taylor__rtn": params.chains["taylor__rtn"]}})


@pytest.fixture
def project(tmp_path):
    """Return a DVC project in which a sweep of `digits` has written."""
    folder = tmp_path / "project"
    (folder / "points").mkdir(parents=True)
    for name in ("digits-dense", "digits-rtn", "digits-taylor__rtn"):
        (folder / "points" / name).write_text(name)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}, sort_keys=False))
    Repo.init(str(folder), no_scm=True).close()
    return folder


def test_the_lock_is_the_one_that_dvc_commit_of_every_stage_writes(project, of_two):
    assert commit(of_two, project, "digits") == 3
    ours = (project / "dvc.lock").read_text()
    (project / "dvc.lock").unlink()
    names = ["compress@digits-dense", "compress@digits-rtn", "chain@digits-taylor__rtn"]
    subprocess.run([sys.executable, "-m", "dvc", "commit", "--quiet", "--force", *names], cwd=project, check=True)
    assert yaml.safe_load(ours) == yaml.safe_load((project / "dvc.lock").read_text())


def test_points_that_are_not_there_are_an_error_that_says_what_to_do(project, of_two):
    (project / "points" / "digits-rtn").unlink()
    with pytest.raises(UserError, match=r"digits-rtn.* run `python -m harness sweep digits` first"):
        commit(of_two, project, "digits")
    assert not (project / "dvc.lock").exists()


def test_a_method_without_a_stage_is_an_error(project, params):
    with pytest.raises(UserError, match=r"dvc\.yaml has no stage .*@digits-"):
        commit(params, project, "digits")


def test_a_folder_that_dvc_does_not_know_is_an_error(of_two, tmp_path):
    with pytest.raises(UserError, match="DVC cannot take note"):
        commit(of_two, tmp_path, "digits")


def test_another_dvc_command_at_work_is_waited_for_by_its_user(project, of_two, monkeypatch):
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0.1)
    with Repo(str(project)) as repo, repo.lock, pytest.raises(UserError, match="another DVC command works in this folder"):
        commit(of_two, project, "digits")
