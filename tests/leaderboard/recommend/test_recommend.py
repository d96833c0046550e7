"""What is recommended for a model, what is left out, and one line where nothing
qualifies.
"""

import json
import shlex

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness.cli.command import app as harness
from leaderboard.records.files import write_folder
from leaderboard.records.outline import read_outline
from leaderboard.records.results import read_track
from leaderboard.tables.build import make_tables
from leaderboard.tables.markdown import markdown_text
from leaderboard.tables.summary import metrics_text
from leaderboard.tables.table import csv_text
from tests.leaderboard.test_commands import assert_fails, run


@pytest.fixture
def built(filled):
    """The filled results with their table and its metrics, without the plots that a
    build takes its time for.
    """
    table = make_tables(read_track(filled.root, "v1", "digits"), read_outline(filled.params))[0]
    write_folder(
        filled.tables(),
        {
            "cpu.csv": csv_text(table),
            "cpu.md": markdown_text(table),
            "metrics.json": metrics_text([table]),
        },
    )
    return filled


def ask(results, cost, *options, model="resnet"):
    """Ask for a recommendation."""
    return run(results, "recommend", "--model", model, "--optimise", cost, *options)


def rows(outcome):
    """Return the first two words of every row of the table: method and setting."""
    assert outcome.exit_code == 0, outcome.output
    table = outcome.stdout.split("\n\n")[1].splitlines()
    return [tuple(line.split()[:2]) for line in table[2:]]


def test_the_smallest_file_is_first_of_what_loses_little_enough(built):
    found = rows(ask(built, "bytes", "--max-drop", "1"))
    # Δ -1, 0, +0.25, -0.5
    assert found == [
        ("rtn", "bits=4"),
        ("rtn", "bits=8"),
        ("l1_channels", "keep=0.5"),
        ("wanda", "sparsity=0.5"),
    ]


def test_a_script_reads_the_same_rows_and_which_are_tied(built):
    answer = json.loads(ask(built, "bytes", "--json", "--top", "2").stdout)
    assert [(row["method"], row["setting"], row["tied"]) for row in answer["rows"]] == [
        ("rtn", "bits=4", True),
        ("rtn", "bits=8", False),
    ]
    assert (answer["track"], answer["version"], answer["qualifying"]) == ("digits", "v1", 4)
    assert answer["rows"][0]["delta_points"] == -1 and answer["without_a_time"] == ""
    assert answer["reproduce"].startswith("shrinkmark run digits --method rtn")


def test_a_loss_beyond_what_is_allowed_is_not_listed(built):
    assert ("rtn", "bits=4") not in rows(ask(built, "bytes", "--max-drop", "0.9"))
    assert rows(ask(built, "bytes", "--max-drop", "100"))[0] == ("rtn", "bits=2")


def test_top_limits_the_rows_and_says_how_many_there_are(built):
    outcome = ask(built, "macs", "--top", "1")
    assert rows(outcome) == [("l1_channels", "keep=0.5")] and "shown: 1 of 4 rows" in outcome.stdout


def test_faster_rows_come_before_ties_and_those_before_slower_ones(built):
    outcome = ask(built, "latency")
    assert rows(outcome) == [("l1_channels", "keep=0.5"), ("rtn", "bits=8"), ("rtn", "bits=4")]
    assert "not listed, without a time of their own: 1 masked" in outcome.stdout


def test_a_row_with_the_program_of_dense_and_one_that_failed_are_counted_with_their_reason(filled):
    filled.benchmarks = [
        benchmark for benchmark in filled.benchmarks if benchmark["extra_info"]["method"] != "rtn"
    ]
    filled.same_program = [
        {"method": "rtn", "id": "r-r-8", "timed": {"method": "dense", "id": "d-r"}}
    ]
    filled.failed = [{"method": "rtn", "id": "r-r-4", "reason": "no operator"}]
    filled.write_latency()
    run(filled, "tables")
    outcome = ask(filled, "latency")
    assert rows(outcome) == [("l1_channels", "keep=0.5")]
    assert "1 run dense's own program, 1 could not be timed, 1 masked" in outcome.stdout


def test_what_cannot_be_told_from_the_first_is_marked_as_tied(filled, point):
    slim = [
        point("s", range(4), size=900, macs=50),
        point("t", range(4), setting={"width": 0.9}, size=125, macs=90),
    ]
    filled.write_method("slim", slim, needs="fine-tune")
    filled.time("slim", "s", 0.5002)
    filled.time("slim", "t", 0.6)
    filled.write_latency()
    run(filled, "tables")
    for cost, equals in (
        ("bytes", {"rtn", "slim"}),
        ("macs", {"l1_channels", "slim"}),
        ("latency", {"l1_channels", "slim"}),
    ):
        outcome = ask(filled, cost)
        tied = [line.split()[0] for line in outcome.stdout.splitlines() if line.endswith("tied")]
        assert len(tied) == 1 and {rows(outcome)[0][0], *tied} == equals


def test_the_lower_end_of_the_interval_and_significance_stand_beside_the_loss(built):
    text = ask(built, "bytes", "--max-drop", "30").stdout
    worst = next(line for line in text.splitlines() if "bits=2" in line)
    assert "-28.0" in worst and "significant ***" in worst and "-34" in worst
    assert "not significant" in next(line for line in text.splitlines() if "bits=4" in line)


def test_needs_restrict_the_budget_class(built):
    assert rows(ask(built, "bytes", "--needs", "fine-tune", "--needs", "calibration")) == [
        ("l1_channels", "keep=0.5"),
        ("wanda", "sparsity=0.5"),
    ]


def test_the_command_that_reproduces_the_first_row_is_one_of_the_harness(built):
    command = shlex.split(ask(built, "bytes").stdout.splitlines()[-1].partition(": ")[2])
    assert command == "shrinkmark run digits --method rtn --model resnet --into try".split()
    usage = CliRunner().invoke(harness, ["run", "--help"]).stdout
    assert all(option in usage for option in command if option.startswith("--"))


def test_a_gain_that_is_none_is_said_to_be_none(built):
    assert (
        "note: none of them is faster than dense"
        in ask(built, "latency", "--needs", "data-free").stdout
    )
    assert "note: none of them has fewer MACs" in ask(built, "macs", "--needs", "data-free").stdout
    assert "note:" not in ask(built, "macs").stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--track", "digist"], "unknown track 'digist': did you mean 'digits'?"),
        (["--hardware", "cpuu"], "unknown hardware 'cpuu': did you mean 'cpu'?"),
        (["--needs", "finetune"], "unknown needs 'finetune': did you mean 'fine-tune'?"),
        (["--version", "v11"], "unknown version 'v11': did you mean 'v1'?"),
    ],
)
def test_an_unknown_name_gets_did_you_mean(built, options, words):
    assert_fails(ask(built, "bytes", *options), 2, words)


def test_an_unknown_model_gets_did_you_mean(built):
    assert_fails(
        ask(built, "bytes", model="resnte"), 2, "unknown model 'resnte': did you mean 'resnet'?"
    )


def test_where_nothing_qualifies_the_mildest_loss_is_named(built):
    options = ("--max-drop", "0.2", "--needs", "calibration")
    assert_fails(
        ask(built, "bytes", *options),
        2,
        "no row of resnet loses at most 0.2 points",
        "0.50 points, of wanda sparsity=0.5",
    )


def test_where_no_row_has_a_time_the_reasons_are_named(built):
    assert_fails(
        ask(built, "latency", "--needs", "calibration"), 2, "has a time of its own: 1 masked"
    )


def test_a_class_that_was_not_measured_on_the_model_names_those_that_were(built):
    assert_fails(
        ask(built, "bytes", "--needs", "calibration", model="vit"),
        2,
        "no measured row that needs calibration: it has fine-tune",
    )


def test_metrics_without_the_noise_floor_are_one_line(built):
    (built.tables() / "metrics.json").write_text(json.dumps({}))
    assert_fails(ask(built, "latency"), 2, "noise_floor_cpu/b1", "shrinkmark tables")


def test_a_table_without_columns_of_latency_is_one_line(built):
    path = built.tables() / "cpu.csv"
    path.write_text(path.read_text().replace("verdict_b", "word_b"))
    assert_fails(ask(built, "latency"), 2, "no column of latency")


def test_where_no_row_has_what_is_ranked_the_column_is_named(built):
    table = built.tables() / "cpu.csv"
    content = pd.read_csv(table, dtype=str)
    content["theoretical_speedup"] = None
    content.to_csv(table, index=False)
    assert_fails(
        ask(built, "macs"),
        2,
        "no row of resnet that loses at most 1 points has a theoretical_speedup",
    )
