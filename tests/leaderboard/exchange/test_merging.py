"""Adding a bundle: machines and methods that we lack, never over ours, never half."""

import csv
import json

import pytest
from typer.testing import CliRunner

from harness.audit.check import check_results, from_elsewhere
from harness.cli.command import app
from harness.run.paths import Paths
from leaderboard.exchange.agreement import Rerun, Verification
from leaderboard.exchange.labels import comparable
from leaderboard.records.errors import UserError
from leaderboard.records.outline import read_outline
from leaderboard.records.results import read_track
from leaderboard.tables.build import build
from tests.leaderboard.exchange.bundles import (
    RECORDS,
    assert_refused,
    elsewhere,
    entries,
    packed,
    run,
    stamp,
    tree,
)


@pytest.fixture
def theirs(filled, tmp_path):
    """The results of another machine, whose points are ours."""
    made = elsewhere(filled, tmp_path / "elsewhere")
    made.latency().unlink()
    stamp(made)
    return made


@pytest.fixture
def new_method(theirs, point):
    """The same with a method that we lack, timed, and nothing else but dense."""
    theirs.write_method(
        "gptq",
        [
            point("g-4", range(5), setting={"bits": 4}, size=140),
            point("g-3", range(9), setting={"bits": 3}, size=110),
        ],
    )
    for name in ("rtn", "wanda", "l1_channels"):
        (theirs.folder() / "points" / f"{name}.json").unlink()
        (theirs.folder() / "predictions" / f"{name}.safetensors").unlink()
    theirs.benchmarks = [
        benchmark for benchmark in theirs.benchmarks if benchmark["extra_info"]["method"] == "dense"
    ]
    theirs.time("gptq", "g-4", 0.8)
    theirs.time("gptq", "g-4", 0.8, 32)
    stamp(theirs)
    theirs.write_latency(machine="beef")
    return theirs


def merged(ours, theirs, params, tmp_path, *options):
    return run(ours, "merge", packed(theirs, params, tmp_path / "theirs.zip"), *options)


def assert_merge_refused(ours, theirs, params, tmp_path, *words):
    """Assert that merging fails with one line and leaves our results as they were."""
    before = tree(ours.root)
    assert_refused(merged(ours, theirs, params, tmp_path), *words)
    assert tree(ours.root) == before


def pages(results):
    """Build the tables and return the text of each file by name."""
    build(results.root, "v1", [], None, read_outline(results.params))
    return {path.name: path.read_text() for path in results.tables().iterdir()}


def label(bundle, labels):
    """Set labels of a bundle's points, as running them again does; {method: {id:
    label}}.
    """
    path = bundle.with_name(f"{bundle.name}.labels.json")
    content = json.loads(path.read_text())
    for method, points in labels.items():
        content["points"][method] |= points
    path.write_text(json.dumps(content))


def test_the_bundle_of_another_machine_gives_it_a_table_of_its_own(
    filled, theirs, params, tmp_path
):
    theirs.write_latency(machine="beef")
    outcome = merged(filled, theirs, params, tmp_path)
    assert outcome.exit_code == 0 and outcome.stdout.splitlines() == [
        "added latency cpu/beef.json"
    ], outcome.output
    found = pages(filled)
    assert {"cpu_f00d.md", "cpu_beef.md"} <= set(found)
    assert (
        "fingerprint `beef`; measured elsewhere, bundle `" in found["cpu_beef.md"]
        and "measured elsewhere" not in found["cpu_f00d.md"]
    )
    assert (
        "origin" not in found["cpu_beef.csv"].splitlines()[0]
        and "origin" not in found["cpu_beef.md"]
    )


def test_a_machine_that_we_have_is_never_overwritten(filled, theirs, params, tmp_path):
    theirs.write_latency()
    before = tree(filled.root)
    outcome = merged(filled, theirs, params, tmp_path)
    assert (
        outcome.exit_code == 0
        and outcome.stdout.startswith("kept our own latency cpu/f00d.json")
        and tree(filled.root) == before
    )


@pytest.mark.parametrize("fingerprint", ["y", ""])
def test_what_was_timed_for_other_artefacts_is_left_out(
    filled, theirs, params, tmp_path, fingerprint
):
    theirs.benchmarks[-1]["extra_info"]["fingerprint"] = fingerprint
    theirs.write_latency(machine="beef")
    before = tree(filled.root)
    outcome = merged(filled, theirs, params, tmp_path)
    assert (
        outcome.exit_code == 0
        and "left out latency cpu/beef.json: it timed l1_channels l-r-1" in outcome.stdout
    )
    assert tree(filled.root) == before


def test_a_method_that_we_lack_is_added_with_its_origin_and_its_times(
    filled, new_method, params, tmp_path
):
    outcome = merged(filled, new_method, params, tmp_path)
    assert outcome.stdout.splitlines() == [
        "added gptq: 2 points (0 of 2 run again)",
        "added latency cpu/beef.json",
    ], outcome.output
    origin = json.loads((filled.folder() / "points" / "gptq.json").read_text())["origin"]
    assert origin["labels"] == {"g-4": "self-reported", "g-3": "self-reported"} and origin[
        "dense"
    ] == {"resnet": "a", "vit": "a"}
    found = pages(filled)
    rows = {
        (row["method"], row["setting"]): row
        for row in csv.DictReader(found["cpu_beef.csv"].splitlines())
    }
    assert (
        rows["gptq", "bits=4"]["origin"] == f"self-reported, bundle {origin['bundle'][:12]}"
        and rows["dense", ""]["origin"] == ""
    )
    assert rows["gptq", "bits=4"]["verdict_b1"] == "faster"
    assert (
        found["cpu_beef.md"].count("| origin") == 1
        and f"self-reported, bundle {origin['bundle'][:12]}" in found["cpu_f00d.md"]
    )
    assert "gptq (from elsewhere)" in found["digest.md"]
    again = run(filled, "merge", tmp_path / "theirs.zip")
    # a second time adds nothing
    assert again.exit_code == 0 and [line.split()[0] for line in again.stdout.splitlines()] == [
        "kept"
    ]
    shown = CliRunner().invoke(
        app,
        [
            "show",
            "--results",
            str(filled.root),
            "--params",
            str(filled.params),
            "--hardware",
            "cpu_beef",
        ],
    )
    assert shown.exit_code == 0 and " origin " in shown.stdout and "self-reported," in shown.stdout


def test_a_row_shows_the_weakest_label_of_its_points(filled, new_method, params, tmp_path):
    bundle = packed(new_method, params, tmp_path / "theirs.zip")
    assert run(filled, "check bundle", bundle).exit_code == 0
    label(bundle, {"gptq": {"g-4": "reproduced"}})
    assert "added gptq: 2 points (1 of 2 run again)" in run(filled, "merge", bundle).stdout
    rows = {
        row["setting"]: row["origin"]
        for row in csv.DictReader(pages(filled)["cpu_beef.csv"].splitlines())
        if row["method"] == "gptq"
    }
    assert rows["bits=4"].startswith("reproduced, ") and rows["bits=3"].startswith(
        "self-reported, "
    )


def test_a_contradicted_bundle_is_not_added(filled, new_method, params, tmp_path):
    bundle = packed(new_method, params, tmp_path / "theirs.zip")
    run(filled, "check bundle", bundle)
    label(bundle, {"gptq": {"g-3": "contradicted"}})
    assert_merge_refused(
        filled, new_method, params, tmp_path, "gptq g-3 was contradicted when it was run again"
    )


def test_a_point_that_differs_where_dense_differs_too_says_nothing(filled):
    track = read_track(filled.root, "v1", "digits")
    (first, second), model = (
        track.by_name["wanda"].measured[:2],
        track.by_name["wanda"].measured[0].model,
    )
    points = tuple(
        Rerun(method="wanda", id=point.id, verdict=verdict)
        for point, verdict in ((first, "different"), (second, "within tolerance"))
    )
    assert [
        point.id for point in comparable(Verification(dense={model: True}, points=points), track)
    ] == [first.id, second.id]
    assert [
        point.id for point in comparable(Verification(dense={model: False}, points=points), track)
    ] == [second.id]


def test_labels_of_another_bundle_are_refused(filled, new_method, params, tmp_path):
    run(filled, "check bundle", packed(new_method, params, tmp_path / "theirs.zip"))
    new_method.latency(machine="beef").unlink()
    assert_merge_refused(
        filled,
        new_method,
        params,
        tmp_path,
        "theirs.zip.labels.json is not about theirs.zip as it is now",
    )


def test_a_method_that_we_have_with_other_points_is_refused_and_nothing_else_is_added(
    filled, new_method, params, tmp_path, point
):
    new_method.write_method(
        "rtn", [point("r-r-8", range(4), setting={"bits": 8}, size=250, fingerprint="y")]
    )
    assert_merge_refused(
        filled,
        new_method,
        params,
        tmp_path,
        "we have rtn already, and r-r-8 differs: made by other code, params or dense weights",
    )
    new_method.write_method("rtn", [point("r-r-6", range(4), setting={"bits": 6}, size=250)])
    assert_merge_refused(
        filled,
        new_method,
        params,
        tmp_path,
        "we have rtn already, and r-r-6 differs: we have no such point",
    )


def test_dense_of_another_machine_is_taken_if_it_agrees(
    filled, new_method, params, tmp_path, point
):
    new_method.write_method(
        "dense",
        [point("d-r", range(6), fingerprint="y"), point("d-v", range(4), "vit", fingerprint="y")],
    )
    stamp(new_method, "y")
    new_method.write_latency(machine="beef")
    outcome = merged(filled, new_method, params, tmp_path)
    assert outcome.stdout.splitlines() == [
        "added gptq: 2 points (0 of 2 run again)",
        "left out latency cpu/beef.json: it timed dense d-r, which is not ours (other code, "
        "params or dense weights)",
    ]


def test_methods_made_from_a_dense_that_is_not_ours_are_refused(
    filled, new_method, params, tmp_path, point
):
    new_method.write_method(
        "dense",
        [point("d-r", range(60), fingerprint="y"), point("d-v", range(4), "vit", fingerprint="y")],
    )
    assert_merge_refused(
        filled,
        new_method,
        params,
        tmp_path,
        "dense resnet is not ours: 140 correct, recorded are 196",
    )


def test_another_version_is_refused(filled, theirs, params, tmp_path):
    filled.params.write_text(filled.params.read_text().replace("v1", "v2"))
    assert_merge_refused(
        filled,
        theirs,
        params,
        tmp_path,
        "is of version 'v1', our results are of 'v2': versions are never mixed",
    )


def test_a_track_that_we_have_not_run_is_refused(filled, theirs, params, tmp_path):
    bundle = packed(theirs, params, tmp_path / "theirs.zip")
    (filled.folder() / "track.json").unlink()
    assert_refused(
        run(filled, "merge", bundle),
        "we have no results of track 'digits'",
        "make repro TRACK=digits",
    )


def test_a_check_names_what_is_from_elsewhere_and_refuses_it_when_dense_has_changed(
    filled, new_method, params, tmp_path
):
    merged(filled, new_method, params, tmp_path)
    methods = {name: plan for name, plan in params.methods.items() if name != "gptq"}
    experiment, paths = (
        params.model_copy(update={"version": "v1", "methods": methods}),
        Paths(tmp_path, "v1"),
    )
    (note,) = from_elsewhere(experiment, paths)
    assert note.startswith("digits: gptq.json was not made here: it is from the bundle ")
    assert not any("gptq.json" in line for line in check_results(experiment, paths))
    assert any(
        "wanda.json belongs to no method" in line
        for line in check_results(experiment.model_copy(update={"methods": {}}), paths)
    )
    filled.write_track(models={"resnet": {"weights_sha256": "b"}, "vit": {"weights_sha256": "a"}})
    (line,) = (line for line in check_results(experiment, paths) if "gptq.json" in line)
    assert "was added when dense 'resnet' was another: delete it" in line


def test_the_same_results_give_the_same_bundle_without_a_name_of_this_machine(
    filled, params, tmp_path, monkeypatch
):
    first, second = (packed(filled, params, tmp_path / name) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == second.read_bytes()
    assert {
        "manifest.json",
        "params.yaml",
        f"{RECORDS}/track.json",
        f"{RECORDS}/latency/cpu/f00d.json",
    } <= set(entries(first))
    monkeypatch.setattr("platform.node", lambda: "A <CPU>")  # as the latency file says
    with pytest.raises(UserError, match=r"f00d\.json holds this machine's name"):
        packed(filled, params, first)
    assert first.read_bytes() == second.read_bytes()


def test_a_bundle_leaves_out_what_came_from_elsewhere(filled, new_method, params, tmp_path):
    merged(filled, new_method, params, tmp_path)
    names = set(entries(packed(filled, params, tmp_path / "ours.zip")))
    assert f"{RECORDS}/points/rtn.json" in names and not {
        name for name in names if "gptq" in name or "beef" in name
    }


def costs(results, machine):
    return results.folder() / "costs" / f"{machine}.json"


def test_the_costs_of_a_machine_that_we_lack_are_added_with_their_origin_and_shown(
    filled, new_method, params, tmp_path
):
    costs(new_method, "f00d").unlink()
    new_method.write_costs({"dense": {"d-r": 9.0}, "gptq": {"g-4": 2.5}}, "beef")
    before = costs(filled, "f00d").read_bytes()
    assert (
        merged(filled, new_method, params, tmp_path).stdout.splitlines()[-1]
        == "added costs beef.json"
    )
    added, bundle = (
        json.loads(costs(filled, "beef").read_text()),
        json.loads((filled.folder() / "points" / "gptq.json").read_text())["origin"]["bundle"],
    )
    assert (
        added["origin"]["bundle"] == bundle
        and added["points"]["gptq"]["g-4"]["seconds"] == 2.5
        and added["machine"]["fingerprint"] == "beef"
    )
    assert costs(filled, "f00d").read_bytes() == before
    rows = {
        (row["method"], row["model"], row["setting"]): row
        for row in csv.DictReader(pages(filled)["cpu_f00d.csv"].splitlines())
    }
    assert [
        rows["gptq", "resnet", setting]["compress_seconds"] for setting in ("bits=4", "bits=3")
    ] == ["2.500", ""]
    # ours, which made more points
    assert rows["dense", "resnet", ""]["compress_seconds"] == "1.500"
    # a second time adds nothing
    assert "added costs" not in run(filled, "merge", tmp_path / "theirs.zip").stdout


def test_our_costs_are_never_overwritten(filled, theirs, params, tmp_path):
    theirs.write_costs({"rtn": {"r-r-8": 99.0}})
    before = tree(filled.root)
    assert (
        merged(filled, theirs, params, tmp_path).stdout.startswith("nothing to add")
        and tree(filled.root) == before
    )


def test_a_bundle_carries_the_costs_of_its_machine_and_not_those_from_elsewhere(
    filled, theirs, params, tmp_path
):
    name = f"{RECORDS}/costs/f00d.json"
    assert (
        entries(packed(filled, params, tmp_path / "ours.zip"))[name]
        == costs(filled, "f00d").read_bytes()
    )
    theirs.write_costs({"rtn": {"r-r-8": 2.0}}, "beef")
    assert merged(filled, theirs, params, tmp_path).stdout.splitlines() == ["added costs beef.json"]
    assert [
        found
        for found in entries(packed(filled, params, tmp_path / "ours.zip"))
        if "/costs/" in found
    ] == [name]


def test_broken_results_are_not_packed(filled, params, tmp_path):
    (filled.folder() / "predictions" / "rtn.safetensors").unlink()
    with pytest.raises(UserError, match=r"rtn\.safetensors cannot be read"):
        packed(filled, params, tmp_path / "ours.zip")
    assert not (tmp_path / "ours.zip").exists()
