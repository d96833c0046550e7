"""The place that all nodes of a cluster reach: what is put there arrives whole and by
its hash, or not at all. No Ray is needed.
"""

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.testbed.ray_nodes import commit
from harness.cluster import revision
from harness.cluster.remote import Remote, fetched, offer, receive, remote_of, send
from leaderboard.records.errors import UserError


@pytest.fixture(params=["folder", "memory"])
def place(request, tmp_path):
    """A shared folder, and a store that is no file system."""
    return Remote(
        str(tmp_path / "shared") if request.param == "folder" else f"memory://{tmp_path.name}"
    )


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(os.urandom(1000))
    return file


@pytest.mark.parametrize(
    ("url", "inputs"),
    [
        ("/shared/x", Path("/shared/x/inputs")),
        ("file:///a", Path("/a/inputs")),
        ("s3://bucket/x", None),
    ],
)
def test_the_folder_of_inputs_is_known_where_this_machine_has_it(url, inputs):
    assert Remote(url).inputs == inputs


def test_an_artefact_arrives_as_it_was_sent_and_is_listed_under_its_name(place, tmp_path):
    folder, arrived = tmp_path / "point", tmp_path / "arrived"
    folder.mkdir()
    arrived.mkdir()
    (folder / "record.json").write_text("{}")
    (folder / "weights.safetensors").write_bytes(b"\0\1")
    called = send(place, "abc", folder)
    assert place.names("points") == [called] and called.startswith("abc.")
    receive(place, called, arrived)
    assert {file.name: file.read_bytes() for file in arrived.iterdir()} == {
        "record.json": b"{}",
        "weights.safetensors": b"\0\1",
    }
    place.remove(f"points/{called}")
    assert place.names("points") == []


def test_an_input_travels_once_to_a_node_and_again_only_if_its_copy_is_not_whole(
    place, weights, tmp_path, monkeypatch
):
    item, asked = offer(place, "dense/abc", weights), []
    monkeypatch.setattr(
        Remote, "get", lambda self, *rest, get=Remote.get: (asked.append(rest[0]), get(self, *rest))
    )
    for _ in range(3):
        assert fetched(place, tmp_path / "node", item).read_bytes() == weights.read_bytes()
    assert asked == [f"inputs/{item.sha256}"]
    (tmp_path / "node" / "dense" / "abc" / weights.name).write_bytes(b"half")
    assert (
        fetched(place, tmp_path / "node", item).read_bytes() == weights.read_bytes()
        and len(asked) == 2
    )


def test_an_input_is_put_once_however_often_it_is_offered(place, weights, monkeypatch):
    put = []
    monkeypatch.setattr(
        Remote,
        "put",
        lambda self, *rest, whole=Remote.put: (put.append(rest[0]), whole(self, *rest)),
    )
    assert (
        offer(place, "dense/abc", weights) == offer(place, "dense/abc", weights) and len(put) == 1
    )


def test_content_that_was_changed_on_the_way_is_refused_and_leaves_nothing(tmp_path, weights):
    place = Remote(str(tmp_path / "shared"))
    item = offer(place, "dense/abc", weights)
    (tmp_path / "shared" / "inputs" / item.sha256).write_bytes(b"x" * 1000)
    with pytest.raises(
        UserError, match="is not what was put there, its hash differs: delete it and run again"
    ):
        fetched(place, tmp_path / "node", item)
    assert [file.name for file in (tmp_path / "node" / "dense" / "abc").iterdir()] == [
        f"{weights.name}.lock"
    ]


def test_a_remote_that_refuses_is_one_line(weights):
    for url in ("/proc/none", "nosuch://bucket"):
        with pytest.raises(
            UserError, match=rf"the remote {url} refuses: .*: mend it or name another with --remote"
        ) as refused:
            offer(Remote(url), "dense/abc", weights)
        assert "\n" not in str(refused.value)


def test_a_remote_is_a_folder_a_url_or_one_of_dvcs(tmp_path):
    (tmp_path / ".dvc").mkdir()
    config = tmp_path / ".dvc" / "config"
    config.write_text("")
    assert (
        remote_of("s3://bucket/there", tmp_path).url == "s3://bucket/there"
        and remote_of("/shared", tmp_path).url == "/shared"
    )
    with pytest.raises(UserError, match="name a folder or URL with --remote"):
        remote_of(None, tmp_path)
    config.write_text(
        "[core]\n    remote = ours\n['remote \"ours\"']\n    url = s3://bucket/dvc\n['remote "
        '"nas"\']\n    url = ../nas\n'
    )
    assert remote_of(None, tmp_path).url == "s3://bucket/dvc/shrinkmark"
    assert remote_of("nas", tmp_path).url == f"{tmp_path}/nas/shrinkmark"
    with pytest.raises(UserError, match="unknown remote of DVC 'our': did you mean 'ours'"):
        remote_of("our", tmp_path)


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """A small checkout in place of this one."""
    monkeypatch.setattr(revision, "ROOT", commit(tmp_path / "checkout"))
    return tmp_path / "checkout"


def test_workers_get_the_committed_code_and_nothing_else(committed, tmp_path):
    (committed / "results").mkdir()
    # a sweep that goes on has written results
    (committed / "results" / "new.json").write_text("{}")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=committed, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert revision.unpack_revision(tmp_path / "code") == head
    assert sorted(path.name for path in (tmp_path / "code").iterdir()) == sorted(revision.CODE)


@pytest.mark.parametrize("changed", ["methods/new.py", "harness/point/worker.py"])
def test_code_that_is_not_committed_is_refused(committed, tmp_path, changed):
    with (committed / changed).open("a") as file:
        file.write("\n# changed\n")
    with pytest.raises(
        UserError,
        match=rf"workers run committed code, but {changed} differs from the commit: commit or "
        r"stash, "
        r"then run again",
    ):
        revision.unpack_revision(tmp_path / "code")


def test_code_outside_of_git_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(revision, "ROOT", tmp_path)
    with pytest.raises(
        UserError,
        match="is no git checkout with a commit: clone the repository and run it from there",
    ):
        revision.unpack_revision(tmp_path / "code")
