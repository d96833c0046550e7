"""Results as version 2 wrote them: compared with, said to be what they are, and
otherwise left alone.
"""

import json

import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from harness.cli.command import app
from leaderboard.records import version2
from leaderboard.records.errors import UserError
from tests.leaderboard.compare.test_compare import table
from tests.leaderboard.exchange.bundles import packed
from tests.leaderboard.exchange.bundles import run as exchange
from tests.leaderboard.test_commands import assert_fails

RECORDS = "v2/records/digits"


@pytest.fixture
def old(filled):
    """The filled results as version 3, and the same as version 2 wrote them."""
    (filled.root / "v1").rename(filled.root / "v3")
    filled.params.write_text(filled.params.read_text().replace("version: v1", "version: v3"))
    for path in [
        *(filled.root / "v3").rglob("points/*.json"),
        *(filled.root / "v3").rglob("costs/*.json"),
        filled.root / "v3" / "digits" / "track.json",
    ]:
        content = json.loads(path.read_text()) | {"version": "v3"}
        filled.write_json(path, content)
        if path.parent.name != "costs":
            filled.write_json(
                filled.root / RECORDS / path.relative_to(filled.root / "v3" / "digits"),
                as_version_2(content),
            )
    for path in (filled.root / "v3").rglob("*.safetensors"):
        (filled.root / RECORDS / "predictions").mkdir(exist_ok=True)
        classes = {
            name: values.astype("uint8")
            for name, values in load_file(path).items()
            if "|" not in name
        }
        save_file(classes, filled.root / RECORDS / "predictions" / path.name)
    latency = filled.root / RECORDS / "latency" / "cpu" / "f00d.json"
    latency.parent.mkdir(parents=True)
    latency.write_bytes(
        (filled.root / "v3" / "digits" / "latency" / "cpu" / "f00d.json").read_bytes()
    )
    return filled


def as_version_2(content):
    """Return track.json or the points of a method with what version 2 held in their
    place.
    """
    for point in content.get("points", []):
        work = point.pop("work", None)
        if work is not None:
            point |= {
                "cost": {"seconds": 1.5, "peak_mib": 20.0, **work},
                "timings": {"compress": 1.5, "export": 0.1, "evaluate": 0.2},
            }
    for model in content.get("models", {}).values():
        model["seconds"] = 3.0
    return content | {"version": "v2"}


def compare(results, a="v2", b="v3"):
    return CliRunner().invoke(
        app, ["compare", a, b, "--results", str(results.root), "--params", str(results.params)]
    )


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_equal_numbers_of_version_2_move_nothing(old):
    outcome = compare(old)
    assert outcome.exit_code == 0, outcome.output
    assert (
        "- **digits**: nothing moved: 12 rows in both, all values equal\n" in outcome.stdout
        and "**The versions differ**" in outcome.stdout
    )
    assert "Speed-up over dense on cpu, batch 32: 0 of 5 rows moved, 5 are equal" in outcome.stdout
    assert "nothing moved: 12 rows in both, all values equal" in compare(old, "v3", "v2").stdout


def test_bytes_and_accuracy_that_changed_since_version_2_are_listed(old, point):
    def change(content):
        content["points"][0]["bytes"] = 300
        content["points"][1] |= {"correct": 150, "accuracy": 0.75}

    edit(old.root / RECORDS / "points" / "rtn.json", change)
    path = old.root / RECORDS / "predictions" / "rtn.safetensors"
    save_file(load_file(path) | {"r-r-4": old.predictions(range(50)).astype("uint8")}, path)
    text = compare(old).stdout
    assert table(text, "Bytes") == [("resnet", "rtn", "bits=8", "300", "250", "-16.67 %")]
    assert [row[:5] for row in table(text, "Accuracy, %")] == [
        ("resnet", "rtn", "bits=4", "75.0", "97.0")
    ]


def test_what_a_point_took_is_read_from_its_record(old):
    found = version2.read_track(old.root / "v2", "digits").by_name["rtn"].spent["r-r-8"]
    assert (found.seconds, found.peak_mib, found.export, found.evaluate) == (1.5, 20.0, 0.1, 0.2)


DAMAGE = [
    ("points/rtn.json", lambda path: path.write_text(path.read_text()[:100]), "rtn.json"),
    ("points/rtn.json", lambda path: path.write_text("[]"), "rtn.json"),
    (
        "points/rtn.json",
        lambda path: edit(path, lambda content: content["points"][0].pop("cost")),
        "rtn.json",
    ),
    (
        "points/rtn.json",
        lambda path: edit(path, lambda content: content["points"][0].pop("bytes")),
        "points.0.ok.bytes",
    ),
    (
        "points/rtn.json",
        lambda path: edit(path, lambda content: content.update(points=["\n"])),
        "rtn.json",
    ),
    ("track.json", lambda path: path.unlink(), "track.json"),
    ("track.json", lambda path: path.write_text("{"), "track.json"),
    ("predictions/rtn.safetensors", lambda path: path.unlink(), "rtn"),
    (
        "predictions/rtn.safetensors",
        lambda path: path.write_bytes(path.read_bytes()[:50]),
        "rtn.json",
    ),
    (
        "predictions/rtn.safetensors",
        lambda path: save_file({"other": load_file(path)["r-r-8"]}, path),
        "r-r-8",
    ),
    (
        "predictions/rtn.safetensors",
        lambda path: save_file(
            {name: part[1:].copy() for name, part in load_file(path).items()}, path
        ),
        "rtn.json",
    ),
]


@pytest.mark.parametrize(("name", "damage", "said"), DAMAGE)
def test_a_damaged_file_of_version_2_is_one_line_that_names_it(old, name, damage, said):
    damage(old.root / RECORDS / name)
    with pytest.raises(UserError) as error:
        version2.read_track(old.root / "v2", "digits")
    assert (
        said in str(error.value)
        and "cannot be read as results of version 2" in str(error.value)
        and "restore it with git" in str(error.value)
    )
    assert "\n" not in str(error.value)


@pytest.fixture
def alone(old):
    """Results of version 2 in a folder whose params.yaml is of version 3."""
    (old.root / "v3").rename(old.root.parent / "kept")
    return old


QUESTIONS = [
    ["tables"],
    ["tables", "digits"],
    ["show"],
    ["recommend", "--model", "resnet", "--optimise", "bytes"],
    ["site"],
]


def ask(results, command, *options):
    """Run a command as in a checkout whose results are `results`."""
    files = ["--results", results.root, "--params", results.params]
    files += {
        "tables": ["--page", results.readme],
        "site": ["--into", results.root.parent / "site"],
    }.get(command, [])
    return CliRunner().invoke(app, [command, *map(str, files), *options])


@pytest.mark.parametrize("command", QUESTIONS, ids=" ".join)
def test_version_3_without_results_says_what_to_run_though_version_2_has_some(alone, command):
    assert_fails(ask(alone, *command), 2, "holds no results of version 'v3' yet: run `dvc repro`")


@pytest.mark.parametrize("command", QUESTIONS, ids=" ".join)
def test_asked_for_version_2_every_command_says_who_reads_it(old, command):
    assert_fails(
        ask(old, *command, "--version", "v2"),
        2,
        "v2 is as version 2 wrote it, which `compare` alone reads",
        "`dvc repro`",
    )


def test_compare_and_merge_say_what_to_run_where_version_3_has_no_results(old, params, tmp_path):
    (old.root / "v3").rename(old.root / "v1")
    for path in (old.root / "v1").rglob("*.json"):
        path.write_text(path.read_text().replace('"version": "v3"', '"version": "v1"'))
    bundle = packed(old, params, tmp_path / "theirs.zip")
    (old.root / "v1").rename(tmp_path / "kept")
    assert_fails(compare(old), 2, "'v3' is no folder of results", "`dvc repro`")
    old.params.write_text(old.params.read_text().replace("version: v3", "version: v1"))
    assert_fails(
        exchange(old, "merge", bundle),
        2,
        "we have no results of track 'digits'",
        "run `make repro TRACK=digits`",
    )


def test_a_track_may_be_called_records(filled):
    filled.write_dense_alone("records")
    outcome = ask(filled, "tables", "records")
    assert outcome.exit_code == 0, outcome.output
