"""What points took: of which machine it is shown, and that it is shown of no other
point.
"""

import csv
import json

import pytest
from typer.testing import CliRunner

from harness.cli.command import app
from leaderboard.records.outline import read_outline
from leaderboard.records.results import read_track
from leaderboard.tables.build import make_tables
from leaderboard.tables.markdown import markdown_text
from leaderboard.tables.table import csv_text
from tests.leaderboard.records.test_reading import edited, refused

IDS = ("r-r-8", "r-r-4", "r-r-2")


def spent(results, method="rtn"):
    """Return the seconds of a method's points, where they are known."""
    found = read_track(results.root, "v1", "digits").by_name[method].spent
    return {name: one.seconds for name, one in found.items()}


def table(results):
    return make_tables(read_track(results.root, "v1", "digits"), read_outline(results.params))[0]


def rows(results):
    """Return the rows of rtn on the resnet by setting, as the CSV has them."""
    lines = csv.DictReader(csv_text(table(results)).splitlines())
    return {
        row["setting"]: row for row in lines if (row["method"], row["model"]) == ("rtn", "resnet")
    }


def costs(results, machine="f00d"):
    return results.folder() / "costs" / f"{machine}.json"


@pytest.mark.parametrize("machine", ["0ther", "zother"])
def test_of_two_machines_that_which_made_most_points_is_shown_and_the_other_for_what_it_lacks(
    filled, machine
):
    costs(filled).unlink()
    filled.write_costs({"rtn": {"r-r-8": 1.0, "r-r-4": 1.0}, "dense": {"d-r": 1.0}}, "f00d")
    filled.write_costs({"rtn": dict.fromkeys(IDS[1:], 7.0)}, machine)
    assert spent(filled) == {"r-r-8": 1.0, "r-r-4": 1.0, "r-r-2": 7.0}
    filled.write_costs(
        {"rtn": dict.fromkeys(IDS[1:], 7.0), "dense": {"d-r": 7.0, "d-v": 7.0}}, machine
    )
    assert spent(filled) == {"r-r-8": 1.0, "r-r-4": 7.0, "r-r-2": 7.0}


def test_what_was_spent_on_a_point_that_is_no_longer_so_is_not_shown_and_hides_no_other_machine(
    filled,
):
    edited(costs(filled), lambda content: content["points"]["rtn"]["r-r-4"].update(fingerprint="y"))
    assert set(spent(filled)) == {"r-r-8", "r-r-2"}
    # fewer points, and of this one the right one
    filled.write_costs({"rtn": {"r-r-4": 3.0}}, "beef")
    assert spent(filled) == {"r-r-8": 1.5, "r-r-4": 3.0, "r-r-2": 1.5}
    assert rows(filled)["bits=4"]["compress_seconds"] == "3.000"


def test_without_a_file_of_costs_the_cells_are_empty(filled):
    whole = rows(filled)["bits=8"]
    assert (float(whole["compress_seconds"]), float(whole["peak_mib"])) == (1.5, 20.0)
    costs(filled).unlink()
    bare = rows(filled)["bits=8"]
    changed = {key for key in whole if bare[key] != whole[key]}
    assert changed == {"compress_seconds", "peak_mib"} and {bare[key] for key in changed} == {""}
    assert "None" not in markdown_text(table(filled)) and "nan" not in markdown_text(table(filled))
    for command, options in (
        ("tables", ["--page", filled.readme]),
        ("site", ["--into", filled.root.parent / "site"]),
    ):
        options = ["--results", filled.root, "--params", filled.params, *options]
        assert CliRunner().invoke(app, [command, *map(str, options)]).exit_code == 0


def test_a_file_of_costs_that_is_damaged_or_of_another_version_is_one_line(filled):
    edited(costs(filled), lambda content: content.update(version="v0"))
    refused(filled, "f00d.json is version 'v0'", "never mixed")
    edited(
        costs(filled),
        lambda content: content.update(
            version="v1", points={"rtn": {"r-r-8": {"fingerprint": "x"}}}
        ),
    )
    refused(filled, "f00d.json is not a file of results: points.rtn.r-r-8.seconds")
    costs(filled).write_text(json.dumps(1)[:0])
    refused(filled, "f00d.json is not valid JSON")
