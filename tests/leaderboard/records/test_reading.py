"""Results that cannot be trusted end in one clear line."""

import functools
import json

import pytest
from safetensors.numpy import load_file, save_file

from leaderboard.records.errors import UserError
from leaderboard.records.latency import STALE, read_latency
from leaderboard.records.outline import Outline
from leaderboard.records.results import find_tracks, read_track
from leaderboard.tables.build import chosen_tracks


def refused(results, *words, track="digits"):
    """Assert that reading fails with one line that holds `words`."""
    with pytest.raises(UserError) as caught:
        read_track(results.root, "v1", track)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def edited(path, edit):
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_whole_results_are_read(filled):
    track = read_track(filled.root, "v1", "digits")
    assert [method.method.name for method in track.methods] == [
        "dense",
        "l1_channels",
        "rtn",
        "wanda",
    ]
    assert track.methods[0].correct["d-r"].sum() == 196


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere not found: run `dvc repro`"):
        find_tracks(tmp_path / "nowhere", "v1")


def test_a_misspelt_version_is_corrected(filled):
    with pytest.raises(UserError, match="unknown version 'v2': did you mean 'v1'"):
        find_tracks(filled.root, "v2")


def test_a_version_without_tracks_is_refused(results):
    (results.root / "v1").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds no <track>/track\.json: run `dvc repro`"):
        chosen_tracks(results.root, "v1", [], Outline())


def test_truncated_json_is_refused(filled):
    path = filled.folder() / "points" / "rtn.json"
    path.write_text(path.read_text()[:100])
    refused(filled, "rtn.json", "not valid JSON", "dvc repro")


def test_results_of_another_version_are_never_mixed(filled):
    edited(
        filled.folder() / "points" / "rtn.json",
        lambda content: content.update(version="v0", points="of another form"),
    )
    refused(filled, "rtn.json", "version 'v0'", "never mixed")


def test_points_of_other_data_are_never_mixed_with_the_track(filled):
    edited(
        filled.folder() / "points" / "rtn.json",
        lambda content: content.update(content_hash="of other data"),
    )
    refused(
        filled,
        "rtn.json",
        "'of other data",
        "track.json on 'abc123",
        "never mixed",
        "run `make repro TRACK=digits`",
    )


@pytest.mark.parametrize(
    "field",
    ["title", "sources", "device", "seeds", "models.resnet.dense", "models.resnet.scratch_epochs"],
)
def test_a_track_must_say_what_its_numbers_rest_on(filled, field):
    *outer, last = field.split(".")
    edited(
        filled.folder() / "track.json",
        lambda content: functools.reduce(dict.get, outer, content).pop(last),
    )
    refused(filled, "track.json", f"{field}: Field required", "run `dvc repro`")


def test_points_must_say_which_data_they_rest_on(filled):
    edited(filled.folder() / "points" / "rtn.json", lambda content: content.pop("content_hash"))
    refused(filled, "rtn.json", "content_hash: Field required", "run `dvc repro`")


def test_results_of_another_track_are_refused(filled):
    edited(filled.folder() / "track.json", lambda content: content.update(track="cifar10"))
    refused(filled, "track 'cifar10'")


def test_an_ok_point_without_numbers_is_refused(filled):
    edited(
        filled.folder() / "points" / "rtn.json", lambda content: content["points"][0].pop("bytes")
    )
    refused(filled, "rtn.json", "points.0.ok.bytes", "Field required")


def test_nan_is_refused(filled):
    edited(
        filled.folder() / "points" / "rtn.json",
        lambda content: content["points"][0].update(effective_macs=float("nan")),
    )
    refused(filled, "rtn.json")


def test_a_missing_predictions_file_is_refused(filled):
    (filled.folder() / "predictions" / "rtn.safetensors").unlink()
    refused(filled, "rtn.safetensors", "cannot be read")


def test_a_truncated_predictions_file_is_refused(filled):
    path = filled.folder() / "predictions" / "rtn.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    refused(filled, "rtn.safetensors", "cannot be read")


def changed_predictions(filled, edit):
    """Change the stored predictions of rtn."""
    path = filled.folder() / "predictions" / "rtn.safetensors"
    content = load_file(path)
    edit(content)
    save_file(content, path)


def test_predictions_missing_for_an_ok_point_are_refused(filled):
    changed_predictions(filled, lambda content: content.pop("r-r-4"))
    refused(filled, "lacks the predictions of point 'r-r-4'")


def test_predictions_of_the_wrong_length_are_refused(filled):
    changed_predictions(
        filled, lambda content: content.update({"r-r-4": content["r-r-4"][:-1].copy()})
    )
    refused(filled, "'r-r-4'", "(199,) for 200")


def test_predictions_that_contradict_the_count_are_refused(filled):
    changed_predictions(filled, lambda content: content.update({"r-r-4": content["r-r-8"].copy()}))
    refused(filled, "'r-r-4' says 194 correct, its predictions 196")


def test_a_point_stored_twice_is_refused(filled):
    edited(
        filled.folder() / "points" / "rtn.json",
        lambda content: content["points"].append(content["points"][0]),
    )
    refused(filled, "'r-r-8' twice")


def test_a_file_of_another_method_is_refused(filled):
    path = filled.folder() / "points" / "rtn.json"
    path.rename(path.with_name("gptq.json"))
    refused(filled, "gptq.json holds the method 'rtn'")


def test_a_track_without_dense_is_refused(filled):
    (filled.folder() / "points" / "dense.json").unlink()
    refused(filled, "no measured point of 'dense'")


def test_labels_that_contradict_the_split_are_refused(filled):
    edited(filled.folder() / "track.json", lambda content: content["test_labels"].pop())
    refused(filled, "200 test images but 199 test labels")


def test_latency_without_an_a_a_control_is_refused(results):
    results.time("rtn", "r", 1.0)
    results.write_latency()
    with pytest.raises(UserError, match="no A/A control at batch 1"):
        read_latency(results.latency(), {})


def test_latency_that_is_not_interleaved_is_refused(results):
    results.time("dense", "d", 1.0)
    results.benchmarks[0]["extra_info"]["dense"].pop()
    results.write_latency()
    with pytest.raises(UserError, match="31 rounds and 31 of dense"):
        read_latency(results.latency(), {})


def test_the_floor_of_each_batch_covers_its_controls(filled):
    run = read_latency(filled.latency(), {})
    assert set(run.floors) == {1, 32}
    assert all(0 < floor < 0.01 for floor in run.floors.values())


def stamped(filled, method, fingerprint):
    """Say that `method` was measured when its points had `fingerprint`; those of
    `filled` have "x".
    """
    for benchmark in filled.benchmarks:
        if benchmark["extra_info"]["method"] == method:
            benchmark["extra_info"]["fingerprint"] = fingerprint
    filled.write_latency()


def test_what_was_measured_for_another_artefact_is_left_out_and_says_so(filled):
    stamped(filled, "rtn", "y")
    run = read_latency(filled.latency(), {("rtn", "r-r-8"): "x", ("dense", "d-r"): "x"})
    assert ("rtn", "r-r-8", 1) not in run.rounds and ("dense", "d-r", 1) in run.rounds
    assert run.reasons["rtn", "r-r-8"] == STALE


def test_nothing_stands_where_dense_was_another_one(filled):
    stamped(filled, "dense", "y")
    run = read_latency(filled.latency(), {("dense", "d-r"): "x", ("dense", "d-v"): "x"})
    assert not run.rounds and not run.floors and run.reasons["rtn", "r-r-8"] == STALE


def test_a_point_that_failed_to_be_measured_has_its_reason(filled):
    filled.failed = [
        {
            "method": "rtn",
            "id": "r-r-8",
            "fingerprint": "x",
            "batch": 1,
            "reason": "no operator\nfor it",
        }
    ]
    filled.write_latency()
    assert read_latency(filled.latency(), {}).reasons == {("rtn", "r-r-8"): "no operator for it"}


@pytest.mark.parametrize("part", ["confidence", "rank"])
def test_predictions_without_one_of_their_parts_are_refused(filled, part):
    changed_predictions(filled, lambda content: content.pop(f"r-r-4|{part}"))
    refused(
        filled, f"rtn.safetensors lacks the {part} of the predictions of point 'r-r-4'", "dvc repro"
    )


@pytest.mark.parametrize("part", ["confidence", "rank"])
def test_a_part_of_predictions_of_another_length_is_refused(filled, part):
    changed_predictions(
        filled,
        lambda content: content.update({f"r-r-4|{part}": content[f"r-r-4|{part}"][:-1].copy()}),
    )
    refused(filled, f"the {part} of the predictions of point 'r-r-4'", "(199,) for 200 test images")


@pytest.mark.parametrize("image", [0, 100])  # one that it gets wrong, and one that it gets right
def test_ranks_that_contradict_the_classes_are_refused(filled, image):
    def flip(content):
        content["r-r-4|rank"][image] = 1 - content["r-r-4|rank"][image]

    changed_predictions(filled, flip)
    refused(filled, "rtn.safetensors: the ranks of point 'r-r-4' are not those of its classes")


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.5])
def test_a_confidence_that_is_none_is_refused(filled, value):
    changed_predictions(filled, lambda content: content["r-r-4|confidence"].__setitem__(3, value))
    refused(
        filled, "rtn.safetensors: the confidence of point 'r-r-4' is not between 0 and 1 everywhere"
    )
