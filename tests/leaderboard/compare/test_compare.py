"""Two results beside each other: what moved, what did not, what cannot be compared."""

import json
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from harness.cli.command import app
from tests.leaderboard.conftest import Results
from tests.leaderboard.test_commands import assert_fails


@pytest.fixture
def other(filled, tmp_path):
    """A copy of the filled results, to be changed."""
    (tmp_path / "other").mkdir()
    shutil.copytree(filled.root, tmp_path / "other" / "results")
    copy = Results(tmp_path / "other")
    copy.benchmarks = filled.benchmarks
    return copy


def ask(a, b, *options):
    """Compare two names."""
    return CliRunner().invoke(app, ["compare", str(a), str(b), *map(str, options)])


def page(a, b, *options):
    """Return the comparison of two results."""
    outcome = ask(a.root, b.root, *options)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def table(text, title):
    """Return the rows of a table of the page, as cells."""
    lines = text.partition(f"#### {title}\n\n")[2].partition("\n\n")[0].splitlines()
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


def rewrite(results, old, new):
    """Replace a text in every record."""
    for path in results.root.rglob("*.json"):
        path.write_text(path.read_text().replace(old, new))


def rtn(point, eight=range(4), four=range(6), size=250, lost=None):
    """Return the points of rtn, changed."""
    points = [
        point("r-r-8", eight, setting={"bits": 8}, size=size),
        point("r-r-4", four, setting={"bits": 4}, size=125),
    ]
    return [
        *points,
        point("r-r-2", range(60), setting={"bits": 2}, size=80),
        *([lost] if lost else []),
    ]


def test_nothing_moves_between_results_and_themselves(filled, other):
    text = page(filled, other)
    assert "- **digits**: nothing moved: 12 rows in both, all values equal\n" in text
    assert "####" not in text and "The versions differ" not in text


def test_an_accuracy_moves_by_the_paired_test_and_a_smaller_change_is_noise(filled, other, point):
    other.write_method(
        "rtn",
        rtn(point, eight=range(40), four=range(8)),
        realisation="packed",
        family="quantisation",
    )
    text = page(filled, other)
    assert [row[:5] for row in table(text, "Accuracy, %")] == [
        ("resnet", "rtn", "bits=8", "98.0", "80.0")
    ]
    assert table(text, "Accuracy, %")[0][5].startswith("-18.0 [-2")
    assert (
        "Accuracy, %: 1 of 9 rows moved, 1 differ within noise, 7 are equal. Exact sign-flip test"
        in text
    )


def test_p_is_adjusted_over_the_rows_that_differ_at_all(filled, other, point):
    # six images more: p = 0.031, alone among those that differ
    other.write_method("rtn", rtn(point, eight=range(10)), realisation="packed")
    assert len(table(page(filled, other), "Accuracy, %")) == 1
    other.write_method(
        "wanda",
        [point("w-r-5", range(1, 6), setting={"sparsity": 0.5}, size=600)],
        realisation="masked",
    )
    # with another that differs by nothing but noise: p = 0.0625
    assert len(table(page(filled, other), "Accuracy, %")) == 0


def test_other_test_images_are_compared_by_their_intervals_and_said_to_be(filled, other, point):
    other.write_method("rtn", rtn(point, eight=range(10)), realisation="packed")
    rewrite(other, "abc123", "def456")
    text = page(filled, other)
    assert "The test images differ, so nothing is paired" in text and not table(text, "Accuracy, %")
    other.write_method("rtn", rtn(point, eight=range(40)), realisation="packed")
    rewrite(other, "abc123", "def456")
    assert [row[2:] for row in table(page(filled, other), "Accuracy, %")] == [
        ("bits=8", "98.0", "80.0", "-18.0")
    ]


def test_bytes_and_macs_move_exactly_the_furthest_first(filled, other, point):
    other.write_method("rtn", rtn(point, size=249), realisation="packed")
    other.write_method(
        "l1_channels",
        [point("l-v", range(3), "vit", setting={"keep": 0.5}, size=600, macs=25)],
        needs="fine-tune",
    )
    text = page(filled, other)
    assert table(text, "Bytes") == [
        ("vit", "l1_channels", "keep=0.5", "500", "600", "+20.00 %"),
        ("resnet", "rtn", "bits=8", "250", "249", "-0.40 %"),
    ]
    assert table(text, "MACs") == [("vit", "l1_channels", "keep=0.5", "50", "25", "-50.00 %")]
    assert "Bytes: 1 more, 1 fewer; MACs: 1 fewer" in text


def slower(results, name, factor):
    """Make a point's rounds at batch 1 slower by a factor."""
    results.benchmarks = [dict(benchmark) for benchmark in results.benchmarks]
    for benchmark in results.benchmarks:
        if (benchmark["extra_info"]["id"], benchmark["extra_info"]["batch"]) == (name, 1):
            benchmark["stats"] = {
                "data": [factor * second for second in benchmark["stats"]["data"]]
            }


def test_a_speedup_moves_beyond_both_noise_floors_on_the_same_machine(filled, other):
    slower(other, "r-r-4", 1.25)
    slower(other, "r-r-8", 1.0005)
    other.write_latency()
    text = page(filled, other)
    ((model, method, setting, before, after, change),) = table(
        text, "Speed-up over dense on cpu, batch 1"
    )
    assert (
        (model, method, setting, change) == ("resnet", "rtn", "bits=4", "-20.00 %")
        and before.startswith("0.67 [")
        and after.startswith("0.53 [")
    )
    assert (
        "batch 1: 1 of 5 rows moved, 1 differ within noise, 3 are equal. Same machine, `f00d`"
        in text
    )


def test_another_machine_is_not_compared(filled, other):
    slower(other, "r-r-4", 3)
    other.latency().unlink()
    other.write_latency(machine="beef")
    text = page(filled, other)
    assert (
        "Latency on cpu: not compared: other machine (f00d in A, beef in B)." in text
        and "Speed-up" not in text
    )


def test_a_hardware_of_one_side_is_not_compared(filled, other):
    other.write_latency("laptop")
    assert "Latency on laptop: not compared: timed only in B." in page(filled, other)


def test_latency_of_the_layout_before_is_read(filled, other):
    shutil.move(other.latency(), other.folder() / "latency" / "cpu.json")
    assert "Speed-up over dense on cpu, batch 32: 0 of 5 rows moved, 5 are equal" in page(
        filled, other
    )


def test_a_row_of_another_status_says_which_and_why(filled, other, point, lost_point):
    other.write_method(
        "rtn",
        rtn(point, lost=lost_point("r-v-8", "skipped", "no | room", "vit", setting={"bits": 8})),
        realisation="packed",
    )
    assert table(page(filled, other), "Status") == [
        ("vit", "rtn", "bits=8", "failed: returned NaN", "skipped: no &#124; room")
    ]


def test_rows_of_one_side_are_listed_by_method(filled, other, point):
    new = [
        point("s-r", range(3), setting={"a": 1}),
        point("s-v", range(3), "vit", setting={"a": 2}),
    ]
    other.write_method("slim", new)
    text = page(filled, other)
    assert table(text, "Only in B") == [("slim", "2", "resnet, vit", "a=1; a=2")] and not table(
        text, "Only in A"
    )
    assert table(page(other, filled), "Only in A") == [("slim", "2", "resnet, vit", "a=1; a=2")]
    assert "12 rows in both. 2 rows only in B" in text


def test_a_track_of_one_side_is_named_and_one_can_be_chosen(filled, other):
    other.write_dense_alone("cifar10")
    assert "- **cifar10**: only in B" in page(filled, other)
    assert "cifar10" not in page(filled, other, "--track", "digits")
    assert_fails(
        ask(filled.root, other.root, "--track", "digist"),
        2,
        "unknown track 'digist': did you mean 'digits'?",
    )
    assert_fails(
        ask(filled.root, other.root, "--track", "cifar10"), 2, "no track to compare", "cifar10"
    )


def test_results_of_different_versions_are_compared_and_the_heading_warns(filled):
    shutil.copytree(filled.root / "v1", filled.root / "v2")
    for path in (filled.root / "v2").rglob("*.json"):
        path.write_text(path.read_text().replace('"version": "v1"', '"version": "v2"'))
    outcome = ask("v1", "v2", "--results", filled.root)
    assert (
        outcome.stdout.startswith(
            "## v1 (A, version v1) and v2 (B, version v2)\n\n**The versions differ**"
        )
        and "nothing moved" in outcome.stdout
    )
    assert ask(filled.root / "v1", filled.root / "v2").stdout.count("nothing moved") == 1
    assert_fails(
        ask(filled.root, "v2", "--results", filled.root, "--params", "none.yaml"),
        2,
        "holds the versions v1, v2: name one, e.g.",
    )


def test_long_tables_are_cut_after_the_furthest(filled, other, point):
    settings = [{"bits": bits} for bits in range(30)]
    filled.write_method(
        "gptq",
        [
            point(f"g{i}", range(4), setting=setting, size=1000)
            for i, setting in enumerate(settings)
        ],
    )
    other.write_method(
        "gptq",
        [
            point(f"g{i}", range(4), setting=setting, size=990 - i)
            for i, setting in enumerate(settings)
        ],
    )
    text = page(filled, other)
    assert (
        table(text, "Bytes")[0][2] == "bits=29"
        and len(table(text, "Bytes")) == 25
        and "… and 5 more." in text
    )


def test_the_page_can_be_written_into_a_file(filled, other, tmp_path):
    text = page(filled, other)
    assert (
        ask(filled.root, other.root, "--into", tmp_path / "moved.md").stdout.strip()
        == (tmp_path / "moved.md").as_posix()
    )
    assert (tmp_path / "moved.md").read_text() == text


def commit(folder, tag="before"):
    """Commit all of a folder."""
    for command in (
        "init --quiet",
        "add --all",
        "-c user.name=n -c user.email=e commit --quiet --message=first",
        f"tag {tag}",
    ):
        subprocess.run(
            ["git", "-C", str(folder), *command.split()], check=True, capture_output=True
        )


@pytest.fixture
def repository(filled):
    """The filled results in a git repository, committed; then rtn at 8 bits is made
    smaller, uncommitted.
    """
    commit(filled.root.parent)
    return filled


def test_a_revision_is_compared_with_what_lies_in_the_folder(repository, point):
    repository.write_method("rtn", rtn(point, size=200), realisation="packed")
    where = ("--results", repository.root, "--params", repository.params)
    for name in ("before", "HEAD:v1"):
        text = ask(name, "v1", *where).stdout
        assert text.startswith(f"## {name} (") and table(text, "Bytes") == [
            ("resnet", "rtn", "bits=8", "250", "200", "-20.00 %")
        ]
    assert "nothing moved" in ask("before", "HEAD", *where).stdout


def test_of_another_revision_the_version_alone_must_be_readable(filled):
    good = filled.params.read_text()
    filled.params.write_text("version: v1\nseed: 3\n")  # as if written for other code
    commit(filled.root.parent)
    filled.params.write_text(good)
    where = ("--results", filled.root, "--params", filled.params)
    assert "nothing moved" in ask("before", "v1", *where).stdout
    filled.params.write_text("seed: 3\n")
    commit(filled.root.parent, "nameless")
    assert_fails(
        ask("nameless", "v1", *where), 2, "params.yaml does not validate: version: Field required"
    )


def test_a_name_that_is_nothing_says_so_on_one_line(repository):
    where = ("--results", repository.root, "--params", repository.params)
    assert_fails(
        ask("nonsense", "v1", *where),
        2,
        "'nonsense' is no folder of results, no version in",
        "no revision 'nonsense'",
    )
    assert_fails(ask("HEAD:v9", "v1", *where), 2, "results/v9")
    assert_fails(ask(repository.folder(), "v1", *where), 2, "holds no results")


def test_results_that_this_code_cannot_read_name_their_side(filled, other):
    (other.folder() / "track.json").write_text('{"version": "v1", "track": "digits"}')
    assert_fails(ask(filled.root, other.root), 2, f"{other.root} cannot be read by this code: ")


@pytest.mark.parametrize("command", ["recommend", "compare"])
def test_every_question_has_help_with_an_example(command):
    outcome = CliRunner().invoke(app, [command, "--help"])
    assert outcome.exit_code == 0 and f"Example: shrinkmark {command}" in outcome.stdout


def test_a_script_reads_what_moved(filled, other):
    found = json.loads(ask(filled.root, other.root, "--json").stdout)
    assert [track["track"] for track in found["tracks"]] == ["digits"]
    assert all(finding["moves"] == [] for finding in found["tracks"][0]["findings"])
