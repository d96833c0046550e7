"""The command line: what it prints, and one line for whatever is wrong."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from harness.cli.command import app
from leaderboard.records.outline import Outline
from leaderboard.tables.cells import typed
from leaderboard.tables.terminal import find_tables
from tests.leaderboard.conftest import lost


def run(results, command, *options):
    """Run a command on `results`."""
    files = ["--results", str(results.root), "--params", str(results.params)]
    readme = ["--page", str(results.readme)] if command == "tables" else []
    return CliRunner().invoke(app, [command, *files, *readme, *options])


def assert_fails(outcome, code, *words):
    """Assert an exit code and one line on stderr that holds `words`."""
    assert outcome.exit_code == code, outcome.output
    lines = outcome.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]


@pytest.fixture
def built(filled):
    """The filled results, built."""
    assert run(filled, "tables").exit_code == 0
    return filled


def test_build_prints_the_pages_that_it_wrote(filled):
    outcome = run(filled, "tables")
    assert outcome.stdout.split() == [(filled.tables() / "cpu.md").as_posix()]
    assert (filled.tables() / "cpu.csv").is_file()


def test_build_takes_the_tracks_to_build(filled):
    filled.write_dense_alone("cifar10")
    assert run(filled, "tables", "cifar10").stdout.split() == [
        (filled.tables("cifar10") / "cpu.md").as_posix()
    ]
    assert not filled.tables("digits").exists()


def test_a_misspelt_track_is_not_built(filled):
    filled.write_params("digits", "cifar10_cpu")
    assert_fails(
        run(filled, "tables", "digist"), 2, "unknown track 'digist': did you mean 'digits'?"
    )
    assert_fails(
        run(filled, "tables", "cifar10-cpu"),
        2,
        "unknown track 'cifar10-cpu': did you mean 'cifar10_cpu'?",
    )


def test_a_track_that_was_not_run_says_what_to_run(filled):
    filled.write_params("digits", "cifar10_cpu")
    words = (
        "track 'cifar10_cpu' has no results",
        "`make repro TRACK=cifar10_cpu`",
        "`shrinkmark run cifar10_cpu`",
    )
    assert_fails(run(filled, "tables", "digits", "cifar10_cpu"), 2, *words)
    assert not filled.tables("digits").exists()
    assert run(filled, "tables").exit_code == 0


def test_showing_a_track_that_was_not_built_says_what_to_run(built):
    built.write_params("digits", "cifar10_cpu")
    assert_fails(
        run(built, "show", "--track", "cifar10_cpu"),
        2,
        "'cifar10_cpu' has no tables",
        "`shrinkmark tables cifar10_cpu`",
    )
    assert_fails(run(built, "show", "--track", "cifar10-cpu"), 2, "did you mean 'cifar10_cpu'?")


def test_show_takes_the_first_track_of_params_that_was_built(built):
    built.write_params("cifar10_cpu", "cifar10_full", "digits")
    built.write_dense_alone("cifar10_full")
    run(built, "tables")
    assert run(built, "show").stdout.startswith("cifar10_full on cpu, version v1\n")


def test_the_track_shown_first_is_shown_first_everywhere(built):
    built.write_params("digits", "photos", first=["photos"])
    built.write_dense_alone("photos")
    place = "<!-- best:begin -->\n<!-- best:end -->\n"
    built.readme.write_text(place)
    page = built.readme.with_name("results.md")
    page.write_text(f"{place}<!-- digest:begin -->\n<!-- digest:end -->\n")
    assert run(built, "tables", "photos", "--page", str(page)).exit_code == 0
    assert run(built, "show").stdout.startswith("photos on cpu, version v1\n")
    readme = built.readme.read_text()
    assert "photos: Digits" in readme and "digits: Digits" not in readme
    text = page.read_text()
    order = ["photos: Digits", "digits: Digits", "### photos", "### digits"]
    assert sorted(order, key=text.index) == order


def test_curves_are_no_table_to_show(built):
    assert [
        (table.track, table.hardware) for table in find_tables(built.root, "v1", Outline())
    ] == [("digits", "cpu")]


def test_tables_of_the_old_layout_are_not_shown(built):
    (built.root / "v1" / "digits-cpu.csv").write_text("model,method\n")
    for ending in ("csv", "md"):
        built.write_json(built.root / "v1" / "tables" / "digits" / f"cpu.{ending}", {})
    assert [choice.path.parent for choice in find_tables(built.root, "v1", Outline())] == [
        built.tables()
    ]


def test_show_prints_a_hundredth_of_a_point_for_ten_thousand_images(large):
    assert run(large, "tables").exit_code == 0
    words = run(large, "show").stdout.split()
    assert "92.60" in words and any(word.startswith("-0.05") for word in words)


def test_show_prints_winners_and_sanity_rows_and_where_the_tables_lie(built):
    outcome = run(built, "show")
    assert outcome.exit_code == 0
    assert (
        "digits on cpu, version v1" in outcome.stdout and "digits/tables/cpu.csv" in outcome.stdout
    )
    rows = [line.split()[:2] for line in outcome.stdout.splitlines()]
    assert ["dense", "data-free"] in rows and ["l1_channels", "keep=0.5"] in rows
    assert ["wanda", "sparsity=0.9"] not in rows  # neither best nor a member


def test_show_fits_160_columns(filled, point):
    setting = {"a_long_name_of_a_hyper_parameter": "x" * 100, "bits": 12}
    filled.write_method(
        "magnitude", [point("m", range(3), setting=setting, size=123456789)], needs="calibration"
    )
    run(filled, "tables")
    text = run(filled, "show").stdout.split("tables:")[0]
    assert max(len(line) for line in text.splitlines()) <= 160
    assert "a_long_name" in text


def test_show_takes_track_and_hardware(built):
    assert run(built, "show", "--track", "digits", "--hardware", "cpu").exit_code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--track", "digist"], "unknown track 'digist': did you mean 'digits'?"),
        (["--hardware", "cpuu"], "unknown hardware 'cpuu': did you mean 'cpu'?"),
        (["--version", "v11"], "unknown version 'v11': did you mean 'v1'?"),
        (["--track", "zzz"], "unknown track 'zzz': known are: digits"),
    ],
)
def test_an_unknown_name_gets_did_you_mean(built, options, words):
    assert_fails(run(built, "show", *options), 2, words)


def test_an_unknown_version_is_not_built(filled):
    assert_fails(run(filled, "tables", "--version", "v2"), 2, "did you mean 'v1'?")


def test_show_builds_what_is_not_built_or_older_than_the_records(filled):
    assert run(filled, "show").exit_code == 0 and (filled.tables() / "cpu.md").exists()
    whole = (filled.tables() / "cpu.csv").read_text()
    filled.write_method(
        "rtn", [lost("r-r-8", "failed", "out of memory", setting={"bits": 8})], realisation="packed"
    )
    for path in filled.tables().iterdir():
        os.utime(path, (1, 1))
    assert run(filled, "show").exit_code == 0 and (filled.tables() / "cpu.csv").read_text() != whole
    assert (
        "out of memory" in (filled.tables() / "cpu.csv").read_text()
        and "old" in filled.readme.read_text()
    ), "the digest is left to build"


def test_there_is_nothing_to_show_without_results(results):
    results.root.joinpath("v1").mkdir(parents=True)
    assert_fails(run(results, "show"), 2, "holds no tables", "shrinkmark tables")


@pytest.mark.parametrize("command", ["tables", "show"])
def test_a_missing_results_folder_is_one_line(results, command):
    assert_fails(run(results, command), 2, "not found", "dvc repro")


def test_truncated_json_is_one_line(filled):
    (filled.folder() / "points" / "rtn.json").write_text('{"version": "v1", "tr')
    assert_fails(run(filled, "tables"), 2, "rtn.json is not valid JSON")


def test_truncated_latency_is_one_line(filled):
    filled.latency().write_text('{"machine_info":')
    assert_fails(run(filled, "tables"), 2, "f00d.json is not valid JSON")


def test_results_of_another_version_are_one_line(filled):
    filled.write_track(version="v0")
    assert_fails(run(filled, "tables"), 2, "version 'v0'", "never mixed")


def test_missing_predictions_are_one_line(filled):
    (filled.folder() / "predictions" / "rtn.safetensors").unlink()
    assert_fails(run(filled, "tables"), 2, "rtn.safetensors", "run `dvc repro`")


def test_a_missing_readme_is_one_line(filled):
    filled.readme.unlink()
    assert_fails(run(filled, "tables"), 2, "cannot read", "README.md")


@pytest.mark.parametrize("text", ["version: [", "hardware: 3", "- a list", "version: 1"])
def test_broken_params_are_one_line(filled, text):
    filled.params.write_text(text)
    assert_fails(run(filled, "tables"), 2, "params.yaml")


def test_without_params_the_version_must_be_given(filled):
    filled.params.unlink()
    assert_fails(run(filled, "tables"), 2, "give --version")
    assert run(filled, "tables", "--version", "v1").exit_code == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "a,b\n1,2\n",
        lambda text: text[:-30],
        lambda text: text.replace("98.0000", "oops"),
        lambda text: text.replace(",200,", ",many,"),
        lambda text: "",
    ],
)
def test_a_damaged_table_is_one_line(built, damage):
    path = built.tables() / "cpu.csv"
    path.write_text(damage(path.read_text()))
    assert_fails(run(built, "show"), 2, "shrinkmark tables")


@pytest.mark.parametrize("command", ["tables", "show"])
def test_every_command_has_help_with_an_example(command):
    outcome = CliRunner().invoke(app, [command, "--help"])
    assert outcome.exit_code == 0 and f"Example: shrinkmark {command}" in outcome.stdout


def test_the_package_imports_neither_torch_nor_the_other_packages():
    code = (
        "import sys, leaderboard.tables.build, leaderboard.tables.terminal; print({'torch', "
        "'methods', 'harness'} & set(sys.modules))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "set()"
    )


def test_help_imports_nothing_heavy():
    heavy = {"torch", "timm", "methods", "numpy", "scipy", "pandas", "pydantic", "yaml"}
    code = f"import sys, harness.cli.command; print({heavy} & set(sys.modules))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "set()"
    )


def test_the_board_can_be_read_by_a_script(built):
    outcome = run(built, "show", "--json")
    shown = json.loads(outcome.stdout)
    assert (shown["track"], shown["hardware"]) == ("digits", "cpu")
    text = run(built, "show").stdout
    assert shown["rows"] and all(row["method"] in text for row in shown["rows"])
    row = next(row for row in shown["rows"] if row["method"] == "dense")
    assert isinstance(row["accuracy_percent"], float) and isinstance(row["bytes"], int)
    assert row["delta_points"] is None and isinstance(row["fingerprint"], str)


def test_a_cell_of_digits_is_text_in_a_column_of_text():
    record = {
        "fingerprint": "12345e67",
        "bytes": "12",
        "speedup_b1": "1.5",
        "p_adjusted": "",
        "verdict_b1": "",
    }
    assert typed(record) == {
        "fingerprint": "12345e67",
        "bytes": 12,
        "speedup_b1": 1.5,
        "p_adjusted": None,
        "verdict_b1": "",
    }
