"""What points took: one file a machine, which grows with each run, forgets what there
is no more, and leaves other machines' alone.
"""

import pytest

from harness.run import costs
from harness.run.paths import Paths
from leaderboard.records import files
from leaderboard.records.results import read_record
from leaderboard.records.schema import CostsFile, Maker, Spent, TrainedIn

ABOUT = {
    "cpu": "a processor",
    "cores": 2,
    "instructions": "AVX2",
    "torch": "2",
    "python": "3",
    "system": "Linux x86_64",
}
HERE, THERE = (Maker(**ABOUT, fingerprint=name) for name in ("here", "there"))
DENSE = {"vit": "dense"}


def took(fingerprint, seconds):
    """Return what a point took."""
    return Spent(fingerprint=fingerprint, seconds=seconds, peak_mib=1, export=1, evaluate=1)


@pytest.fixture
def paths(tmp_path):
    return Paths(tmp_path, "v1")


@pytest.fixture
def run(paths):
    """Have a machine run points, given by method, id, fingerprint and seconds, of an
    experiment that has the points `wanted`.
    """

    def command(wanted, *points, machine=HERE):
        for method, name, fingerprint, seconds in points:
            costs.keep(paths.spent("digits", method, name), machine, took(fingerprint, seconds))
        costs.write_costs(paths, "digits", DENSE, wanted)

    return command


@pytest.fixture
def known(paths):
    """Return the seconds that a machine's file knows, by method and id."""

    def read(machine=HERE):
        found = read_record(paths.costs("digits") / f"{machine.fingerprint}.json", CostsFile)
        assert found.machine == machine and (found.version, found.track) == ("v1", "digits")
        return {
            method: {name: spent.seconds for name, spent in points.items()}
            for method, points in found.points.items()
        }

    return read


BOTH = {"rtn": {"a": "1", "b": "2"}}


def test_two_runs_on_one_machine_are_put_together(paths, run, known):
    run({"rtn": {"a": "1"}}, ("rtn", "a", "1", 10))
    paths.spent("digits", "rtn", "a").unlink()  # of artefacts that are no longer here
    run(BOTH, ("rtn", "b", "2", 20))
    assert known() == {"rtn": {"a": 10, "b": 20}}


def test_a_point_that_is_run_again_replaces_what_was_known_of_it(run, known):
    run(BOTH, ("rtn", "a", "1", 10), ("rtn", "b", "2", 20))
    run(BOTH, ("rtn", "a", "1", 11))
    assert known() == {"rtn": {"a": 11, "b": 20}}
    run({"rtn": {"a": "other", "b": "2"}}, ("rtn", "a", "other", 12))
    assert known() == {"rtn": {"a": 12, "b": 20}}


def test_another_machines_file_is_left_alone_and_a_point_is_known_to_both(paths, run, known):
    run(BOTH, ("rtn", "a", "1", 10), ("rtn", "b", "2", 20), machine=THERE)
    file = paths.costs("digits") / "there.json"
    whole = file.read_bytes() + b"\n"
    file.write_bytes(whole)  # as nobody of us would write it
    for name in ("a", "b"):
        paths.spent("digits", "rtn", name).unlink()
    run({"rtn": {"a": "1"}}, ("rtn", "a", "1", 11))
    assert (
        file.read_bytes() == whole
        and known(THERE) == {"rtn": {"a": 10, "b": 20}}
        and known(HERE) == {"rtn": {"a": 11}}
    )


def test_points_that_other_machines_ran_for_this_one_are_in_files_of_theirs(run, known):
    run(BOTH, ("rtn", "a", "1", 10), machine=THERE)
    run(BOTH, ("rtn", "b", "2", 20))
    assert known(THERE) == {"rtn": {"a": 10}} and known(HERE) == {"rtn": {"b": 20}}


def test_points_that_params_no_longer_name_disappear_and_those_that_do_not_stand(run, known):
    run(BOTH, ("rtn", "a", "1", 10), ("rtn", "b", "2", 20))
    run({"rtn": {"b": "2"}})
    assert known() == {"rtn": {"b": 20}}
    run({"rtn": {"b": "of other code"}, "svd": {"c": "3"}}, ("svd", "c", "3", 30))
    assert known() == {"svd": {"c": 30}}


def test_a_command_for_one_method_leaves_what_is_known_of_others(run, known):
    run({**BOTH, "svd": {"c": "3"}}, ("rtn", "a", "1", 10), ("svd", "c", "3", 30))
    run(BOTH, ("rtn", "b", "2", 20))
    assert known() == {"rtn": {"a": 10, "b": 20}, "svd": {"c": 30}}


def test_what_training_took_is_known_as_long_as_the_dense_model_stands(paths, run, known):
    note = paths.spent_on_dense("digits", "vit")
    costs.keep(note, HERE, TrainedIn(fingerprint="dense", seconds=100))
    run(BOTH, ("rtn", "a", "1", 10))
    note.unlink()
    run(BOTH, ("rtn", "b", "2", 20))
    file = paths.costs("digits") / "here.json"
    assert read_record(file, CostsFile).dense == {
        "vit": TrainedIn(fingerprint="dense", seconds=100)
    }
    costs.write_costs(paths, "digits", {"vit": "other"}, BOTH)
    assert read_record(file, CostsFile).dense == {}


def test_the_order_of_runs_does_not_show_and_a_note_that_is_damaged_says_nothing(paths, run):
    first, second = ("rtn", "a", "1", 10), ("rtn", "b", "2", 20)
    file = paths.costs("digits") / "here.json"
    run(BOTH, first)
    run(BOTH, second)
    whole = file.read_bytes()
    file.unlink()
    run(BOTH, second, first)
    assert file.read_bytes() == whole
    paths.spent("digits", "rtn", "a").write_text('{"machine"')
    run(BOTH)
    assert file.read_bytes() == whole


def test_seconds_are_those_of_all_that_was_done_on_any_machine(paths, run):
    run(BOTH, ("rtn", "a", "1", 10))
    run(BOTH, ("rtn", "b", "2", 20), machine=THERE)
    assert costs.seconds_of(paths, ["digits", "other"]) == {
        "digits rtn a": 12,
        "digits rtn b": 22,
    }
    files.write_json(
        paths.costs("digits") / "here.json",
        files.read_json(paths.costs("digits") / "here.json") | {"version": "v0"},
    )
    assert costs.seconds_of(paths, ["digits"]) == {"digits rtn b": 22}
