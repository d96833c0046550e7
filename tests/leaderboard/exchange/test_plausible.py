"""Numbers that cannot have been measured, or contradict ours."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.leaderboard.exchange.bundles import (
    RECORDS,
    assert_refused,
    elsewhere,
    entries,
    packed,
    run,
    with_entry,
    write,
)


@pytest.fixture
def theirs(filled, tmp_path):
    """The results of another machine, which are ours so far."""
    return elsewhere(filled, tmp_path / "elsewhere")


def edit(results, method, **changed):
    """Change numbers of a method's first point."""
    path = results.folder() / "points" / f"{method}.json"
    content = json.loads(path.read_text())
    content["points"][0] |= changed
    path.write_text(json.dumps(content))


def verified(ours, theirs, params, tmp_path):
    return run(ours, "check bundle", packed(theirs, params, tmp_path / "theirs.zip"))


def test_results_that_are_ours_are_self_reported_until_they_are_run_again(
    filled, theirs, params, tmp_path
):
    outcome = verified(filled, theirs, params, tmp_path)
    assert outcome.exit_code == 0 and outcome.stdout.startswith("theirs.zip: 10 self-reported"), (
        outcome.output
    )
    labels = json.loads((tmp_path / "theirs.zip.labels.json").read_text())
    assert (
        labels["points"]["dense"] == {"d-r": "self-reported", "d-v": "self-reported"}
        and labels["share"] is None
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"accuracy": 0.99}, "rtn r-r-8: accuracy 0.990000 is not 196 of 200"),
        ({"bytes": 200}, "200 bytes are fewer than its setting leaves"),
        ({"macs": 1001}, "1,001 macs are not between 1 and 10 times those of dense"),
        ({"parameters": 0}, "0 parameters are not between 1 and 10 times"),
        ({"effective_macs": 101}, "101 effective MACs are more than its 100 MACs"),
        ({"model": "deit"}, "its model 'deit' has no dense"),
        (
            {"macs": 50, "effective_macs": 50},
            "rtn r-r-8 has the fingerprint of ours and other numbers: macs 50, recorded 100",
        ),
    ],
)
def test_numbers_that_cannot_be_are_refused(filled, theirs, params, tmp_path, changed, said):
    edit(theirs, "rtn", **changed)
    assert_refused(verified(filled, theirs, params, tmp_path), said)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            lambda content: content.update(stray=content["r-r-8"]),
            "predictions of 'stray', which is no point of it",
        ),
        (
            lambda content: content.update({"r-r-8": content["r-r-8"].astype(np.float32)}),
            "type float32, not classes",
        ),
    ],
)
def test_predictions_that_are_none_are_refused(filled, theirs, params, tmp_path, changed, said):
    path = theirs.folder() / "predictions" / "rtn.safetensors"
    content = load_file(path)
    changed(content)
    save_file(content, path)
    assert_refused(verified(filled, theirs, params, tmp_path), said)


@pytest.mark.parametrize("word", ["needs", "realisation"])
def test_a_class_of_its_own_to_win_in_is_refused(filled, theirs, params, tmp_path, word):
    path = theirs.folder() / "points" / "rtn.json"
    content = json.loads(path.read_text())
    content["method"][word] = "magic"
    path.write_text(json.dumps(content))
    assert_refused(
        verified(filled, theirs, params, tmp_path),
        "rtn says",
        "'magic'",
        "no needs or realisation of ours",
    )


@pytest.mark.parametrize(
    ("timed", "said"),
    [
        (("wanda", "w-r-5", 0.5), "times wanda, whose zeros no clock can show"),
        (("rtn", "r-r-2", 0.001), "999 times as fast as dense at batch 1"),
    ],
)
def test_times_that_no_clock_gave_are_refused(filled, theirs, params, tmp_path, timed, said):
    theirs.time(*timed)
    theirs.write_latency()
    assert_refused(verified(filled, theirs, params, tmp_path), said)


def test_times_of_points_that_are_not_there_or_of_another_machine_are_refused(
    filled, theirs, params, tmp_path
):
    theirs.time("rtn", "r-r-3", 1.0)
    theirs.write_latency()
    theirs.latency().rename(theirs.latency(machine="beef"))
    assert_refused(
        verified(filled, theirs, params, tmp_path),
        "beef.json: was measured on machine 'f00d' (and 1 more)",
    )


def test_other_data_is_refused(filled, theirs, params, tmp_path):
    for path in (theirs.folder() / "track.json", *(theirs.folder() / "points").glob("*.json")):
        path.write_text(path.read_text().replace("abc123", "of other data"))
    assert_refused(
        verified(filled, theirs, params, tmp_path),
        "it rests on data 'of other data…', ours on 'abc123…'",
    )


def test_what_tables_refuse_is_refused_by_the_name_it_has_in_the_bundle(
    filled, theirs, params, tmp_path
):
    bundle = packed(theirs, params, tmp_path / "theirs.zip")
    files = entries(bundle)
    content = files.pop(f"{RECORDS}/points/rtn.json").replace(b'"correct": 196', b'"correct": 190')
    write(bundle, files.items())
    with_entry(bundle, f"{RECORDS}/points/rtn.json", content)
    assert_refused(
        run(filled, "check bundle", bundle),
        f": {RECORDS}/predictions/rtn.safetensors: point 'r-r-8' says 190 correct, its "
        "predictions 196",
    )


def test_other_test_labels_are_refused(filled, theirs, params, tmp_path):
    theirs.labels = (theirs.labels + 1) % 10
    theirs.write_track()
    for name in ("wanda", "rtn", "l1_channels"):
        (theirs.folder() / "points" / f"{name}.json").unlink()
        (theirs.folder() / "predictions" / f"{name}.safetensors").unlink()
    content = json.loads((theirs.folder() / "points" / "dense.json").read_text())
    answers = {
        key: part
        for point in content["points"]
        for key, part in theirs.answers(point["id"], range(4)).items()
    }
    save_file(answers, theirs.folder() / "predictions" / "dense.safetensors")
    theirs.latency().unlink()
    assert_refused(verified(filled, theirs, params, tmp_path), "its test labels are not ours")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"origin": {"bundle": "0" * 64}}, "costs/f00d.json: is from elsewhere already"),
        ({"machine": {"fingerprint": "beef"}}, "costs/f00d.json: is of machine 'beef'"),
        (
            {"points": {"rtn": {"r-r-8": {"seconds": -1}}}},
            "costs/f00d.json is not a file of results",
        ),
        ({"track": "other"}, "costs/f00d.json is version 'v1' of track 'other'"),
    ],
)
def test_costs_that_their_machine_did_not_write_are_refused(
    filled, theirs, params, tmp_path, changed, said
):
    bundle = packed(theirs, params, tmp_path / "theirs.zip")
    files = entries(bundle)
    content = json.loads(files.pop(f"{RECORDS}/costs/f00d.json"))
    changed = {
        key: content[key] | value if key == "machine" else value for key, value in changed.items()
    }
    write(bundle, files.items())
    with_entry(bundle, f"{RECORDS}/costs/f00d.json", json.dumps(content | changed).encode())
    assert_refused(run(filled, "check bundle", bundle), said)


def test_what_a_bundle_holds_from_elsewhere_is_refused(filled, theirs, params, tmp_path):
    bundle = packed(theirs, params, tmp_path / "theirs.zip")
    files = entries(bundle)
    names = [f"{RECORDS}/points/rtn.json", f"{RECORDS}/latency/cpu/f00d.json"]
    changed = {
        name: json.dumps(json.loads(files.pop(name)) | {"origin": {"bundle": "0" * 64}}).encode()
        for name in names
    }
    write(bundle, files.items())
    for name, content in changed.items():
        with_entry(bundle, name, content)
    assert_refused(
        run(filled, "check bundle", bundle), "rtn is from elsewhere already", "(and 1 more)"
    )
