"""What is said of results beside those that were committed: byte for byte the same,
other code, another instruction set, or a contradiction.
"""

import json
import subprocess

import pytest
import torch

from harness.audit.check import check_results
from harness.audit.reproduction import reproductions
from harness.run.paths import Paths
from leaderboard.records.params import load_params
from tests.leaderboard.conftest import Results, fill, ok

OWN = torch.backends.cpu.get_cpu_capability()


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def committed(tmp_path):
    """Return made-up results that are committed, made with this machine's
    instructions.
    """
    results = Results(tmp_path)
    results.write_params("digits")
    fill(results)
    made_with(results, OWN)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "results")
    return results


def made_with(results, instructions):
    results.write_costs({"rtn": {"r-r-8": 1.5}})
    file = results.folder() / "costs" / "f00d.json"
    content = json.loads(file.read_text())
    content["machine"]["instructions"] = instructions
    results.write_json(file, content)


def said(results):
    params = load_params(results.params)
    return list(reproductions(params, Paths(results.root.parent, params.version)))


def rtn_again(results, wrong, **changed):
    points = [
        ok("r-r-8", wrong, setting={"bits": 8}, size=250, **changed),
        ok("r-r-4", range(6), setting={"bits": 4}, size=125),
    ]
    results.write_method(
        "rtn",
        [*points, ok("r-r-2", range(60), setting={"bits": 2}, size=80)],
        realisation="packed",
        family="quantisation",
    )


def test_files_that_are_those_committed_are_said_to_be_so_whatever_the_machine_took(committed):
    committed.write_costs({"rtn": {"r-r-8": 99.0}}, machine="cafe")
    (track,) = said(committed)
    assert (
        track.line
        == (
            "digits: 9 files of dense models, points and predictions are those committed, byte for "
            "byte"
        )
        and not track.contradicted
    )


def test_another_result_under_the_same_fingerprint_on_the_same_instructions_is_a_contradiction(
    committed,
):
    rtn_again(committed, range(50))
    (track,) = said(committed)
    assert (
        track.contradicted
        and "1 different" in track.line
        and f"although this machine computes with {OWN}" in track.line
    )


def test_another_result_under_another_fingerprint_is_other_code(committed):
    rtn_again(committed, range(50), fingerprint="y")
    (track,) = said(committed)
    assert (
        not track.contradicted
        and "1 different" in track.line
        and "code, params or data have changed" in track.line
    )


def test_a_model_that_one_side_alone_has_is_named_and_is_no_difference(committed):
    committed.write_track(models=("resnet", "vit", "fetched"))
    git(committed.root.parent, "commit", "--quiet", "--all", "--message", "with a network")
    committed.write_track()
    (track,) = said(committed)
    assert not track.contradicted and "0 different" in track.line
    assert track.line.endswith("(beside them models that one side alone has: fetched)")


def test_another_instruction_set_is_named_and_compared_within_tolerance(committed):
    made_with(committed, "ANOTHER")
    git(committed.root.parent, "commit", "--quiet", "--all", "--message", "made elsewhere")
    rtn_again(committed, range(1, 6), fingerprint="y")
    (track,) = said(committed)
    assert not track.contradicted and "1 within tolerance" in track.line
    assert (
        f"this machine computes with {OWN}, they were made with ANOTHER, by which training takes "
        "other paths"
    ) in track.line


def test_without_git_there_is_nothing_to_compare_with(tmp_path):
    results = Results(tmp_path)
    fill(results)
    assert said(results) == []


@pytest.mark.parametrize(
    ("lock", "line"),
    [
        (
            "stages:\n  code: {}\n  compress@digits-rtn: {}\n  site: {}\n",
            "dvc.lock names 2 stages that there are not, e.g. code, as version 2 did",
        ),
        ("stages: [", "dvc.lock cannot be read as DVC's"),
        (
            "stages:\n  train@digits: {}\n  compress@digits: {}\n  measure@digits-cpu: {}\n  "
            "leaderboard@digits: {}\n  site: {}\n",
            None,
        ),
    ],
)
def test_a_lock_of_version_2_is_one_line(results, lock, line):
    fill(results)
    (results.root.parent / "dvc.lock").write_text(lock)
    params = load_params(results.params)
    found = [
        finding
        for finding in check_results(params, Paths(results.root.parent, params.version))
        if finding.startswith("dvc.lock")
    ]
    assert [finding[: len(line)] for finding in found] == [line] if line else not found
    assert all(
        "delete it and run dvc repro" in finding and "\n" not in finding for finding in found
    )


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path)
