"""What a node of a cluster does with a point, without a cluster: run it and send it
back, or say why it will not. No Ray is needed.
"""

from dataclasses import replace

import pytest

from harness.cluster.inputs import given_for
from harness.cluster.remote import Remote, receive
from harness.cluster.tasks import FailedOnNode, RefusedNode, run_point
from harness.run import fingerprint
from harness.run.costs import Kept, this_machine
from harness.run.points import expand
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.results import read_record


@pytest.fixture
def asked(small, tmp_path, monkeypatch):
    """What a sweep hands over, a point, and the fingerprint it must have, on a node
    with an empty cache.
    """
    params, paths = small
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("SHRINKMARK_DATA", str(tmp_path / "cache"))
    given = given_for(params, paths, ["digits"], Remote(str(tmp_path / "shared")))
    (point,) = expand(params, "digits", "dense")
    return given, point, fingerprint.point_fingerprint(params, point, given.records["digits"])


def test_a_point_is_run_on_fetched_inputs_and_sent_back_whole(asked, small, tmp_path):
    given, point, wanted = asked
    result = run_point(given, point, wanted, "a")
    (tmp_path / "back").mkdir()
    receive(given.remote, result.artefact, tmp_path / "back")
    assert (
        files.read_json(tmp_path / "back" / "record.json")
        == result.made.record.model_dump(mode="json")
        and result.made.record.fingerprint == wanted
    )
    assert {file.name for file in (tmp_path / "back").iterdir()} == {
        *(
            "record.json",
            "spent.json",
            "weights.safetensors",
            "program.pt2",
            "predictions.safetensors",
        )
    }
    assert read_record(tmp_path / "back" / "spent.json", Kept) == Kept(
        machine=this_machine(), spent=result.made.spent
    )
    dense = files.read_json(small[1].records("digits") / "track.json")["models"]["mobilenet"]
    assert result.made.record.accuracy == pytest.approx(dense["test_accuracy"], abs=0.002)
    assert (
        tmp_path / "cache" / "cluster" / "dense" / dense["weights_sha256"] / "mobilenet.safetensors"
    ).exists()


def test_a_node_that_would_make_another_point_refuses(asked):
    given, point, wanted = asked
    assert run_point(replace(given, torch="2.0.0 (other)"), point, wanted, "a").reason.endswith(
        "this sweep is made with 2.0.0 (other)"
    )
    refused = run_point(given, point, "of another revision", "a")
    assert isinstance(refused, RefusedNode) and refused.reason.startswith(
        "its code or libraries are of another revision: dense would be made by"
    )


def test_a_node_that_cannot_have_the_inputs_says_why_and_where(asked):
    given, point, wanted = asked
    failed = run_point(replace(given, remote=Remote("/proc/none")), point, wanted, "a")
    assert failed == FailedOnNode("a", failed.reason) and failed.reason.startswith(
        "the remote /proc/none refuses: "
    )


def test_inputs_that_are_not_what_was_trained_are_refused(small, tmp_path):
    params, paths = small
    file, remote = paths.dense("digits") / "mobilenet.safetensors", Remote(str(tmp_path / "shared"))
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-1] + b"x")
        with pytest.raises(
            UserError,
            match="is missing or not what track 'digits' was trained to: run the train stage again",
        ):
            given_for(params, paths, ["digits"], remote)
    finally:
        file.write_bytes(whole)
