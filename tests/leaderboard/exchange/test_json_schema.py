"""The published form of results is the one that is read."""

import json

import pytest
from typer.testing import CliRunner

from harness.cli.command import app
from leaderboard.exchange.json_schema import schema_texts
from tests.conftest import ROOT


def test_the_committed_schemas_are_what_the_command_writes(tmp_path):
    assert CliRunner().invoke(app, ["schema", "--into", str(tmp_path)]).exit_code == 0
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {
        path.name: path.read_text()
        for path in (ROOT / "leaderboard" / "records" / "schemas").iterdir()
    }
    assert written == committed, "run shrinkmark schema --into leaderboard/records/schemas"


def test_without_a_folder_the_schemas_are_printed():
    assert CliRunner().invoke(app, ["schema"]).stdout == "".join(schema_texts().values())


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("track", "test_labels"),
        ("points", "content_hash"),
        ("costs", "machine"),
        ("latency", "benchmarks"),
        ("manifest", "files"),
    ],
)
def test_a_schema_says_what_a_file_must_hold(name, field):
    assert field in json.loads(schema_texts()[f"{name}.schema.json"])["required"]


@pytest.mark.parametrize("command", ["check bundle", "merge", "schema"])
def test_every_command_has_help_with_an_example(command):
    outcome = CliRunner().invoke(app, [*command.split(), "--help"])
    assert outcome.exit_code == 0 and f"Example: shrinkmark {command}" in " ".join(
        outcome.stdout.split()
    )
