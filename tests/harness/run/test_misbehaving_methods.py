"""A method that misbehaves is a visible failed row with one line of reason; its
neighbours are untouched.
"""

import sys
from pathlib import Path

import landlockpy
import pytest
import yaml

from harness.cli.command import main
from harness.data._cifar10_files import CIFAR10
from harness.data.splits import TEST
from harness.point.worker import Job
from harness.run.compress import compress
from harness.run.guard import unguarded_compress, with_test_images
from leaderboard.records import files
from leaderboard.records.errors import UserError

CASES = [
    ("outside_raises", "RuntimeError: the spectrum of this model is empty"),
    ("outside_wrong_shape", "returns (16, 7), dense returns (16, 10)"),
    ("outside_returns_nan", "returns NaN or infinity"),
    ("outside_no_module", "not a torch.nn.Module"),
    ("outside_changes_dense", "changed the dense model"),
    ("outside_other_when_exported", "differs from the model that the method returned"),
    (
        "outside_asks_for_more",
        'the method says needs = "data-free" and asks for data.train: say needs = "labels"',
    ),
    ("outside_eats_memory", "out of memory"),
    ("outside_crashes", "exit code 9"),
    ("outside_segfaults", "exit code -11"),
]


def only_record(paths, method):
    (record,) = files.read_json(paths.points("digits", method))["points"]
    return record


@pytest.mark.parametrize(("method", "reason"), CASES)
def test_a_misbehaving_method_is_a_failed_row_with_its_reason(small, with_methods, method, reason):
    _, paths = small
    summary = compress(with_methods({method: [{}]}, gibibytes=2), paths, "digits", [method])
    record = only_record(paths, method)
    assert (summary.failed, record["status"]) == (1, "failed")
    assert reason in record["reason"] and "\n" not in record["reason"]


def test_a_method_that_never_returns_is_stopped_at_its_time_limit(small, with_methods):
    _, paths = small
    compress(
        with_methods({"outside_never_returns": [{}]}, seconds=3),
        paths,
        "digits",
        ["outside_never_returns"],
    )
    assert "time limit of 3 s" in only_record(paths, "outside_never_returns")["reason"]


def test_a_method_finds_no_test_image_and_no_test_label_in_the_memory_of_its_process(
    small, with_methods
):
    _, paths = small
    assert (
        compress(
            with_methods({"outside_searches_memory": [{}]}),
            paths,
            "digits",
            ["outside_searches_memory"],
        ).failed
        == 0
    )


WAYS = (
    "open, a library in Rust, a child process, a link, another name, the dataset, memory, the "
    "network, a signal"
)


@pytest.mark.skipif(
    landlockpy.abi_version() < 6, reason="this kernel has no Landlock, or one that knows no signals"
)
def test_a_method_can_read_no_test_image_by_whatever_way(small, with_methods, monkeypatch):
    _, paths = small
    reaching = with_methods({"outside_reads_the_test_split": [{}]})
    with monkeypatch.context() as unguarded:
        unguarded.setattr("harness.run.compress.guarded_compress", unguarded_compress)
        compress(reaching, paths, "digits", ["outside_reads_the_test_split"])
    assert (
        only_record(paths, "outside_reads_the_test_split")["reason"]
        == f"RuntimeError: worked: {WAYS}"
    )
    assert compress(reaching, paths, "digits", ["outside_reads_the_test_split"]).failed == 0


@pytest.mark.parametrize("own", ["artefacts/digits/data/8x8", "data/0123/8x8"])
def test_the_test_splits_of_all_tracks_are_closed_and_what_they_were_read_from(
    own, tmp_path, monkeypatch, track
):
    other = {
        "artefacts/digits/data/8x8": "artefacts/cifar10/data/32x32",
        "data/0123/8x8": "data/4567/9x9",
    }[own]
    beside = str(Path(own).with_name("16x16"))
    for folder in (own, other, beside):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / TEST).touch()
    monkeypatch.setenv("SHRINKMARK_DATA", str(tmp_path))
    closed = set(
        with_test_images(Job(track, "m", "m", {}, 0, tmp_path / own, tmp_path, tmp_path, 2.0))
    )
    assert {
        tmp_path / own / TEST,
        tmp_path / other / TEST,
        tmp_path / beside / TEST,
        *(tmp_path / name for name in ("cifar10", CIFAR10.base_folder, CIFAR10.filename)),
    } <= closed


def test_a_failed_point_is_tried_again_and_finished_ones_are_not(small, with_methods):
    _, paths = small
    again = with_methods({"outside_raises": [{}], "outside_scale": [{"factor": 0.5}]})
    assert [compress(again, paths, "digits", ["outside_raises"]).run for _ in range(2)] == [1, 1]
    assert [compress(again, paths, "digits", ["outside_scale"]).run for _ in range(2)] == [1, 0]


def test_a_command_with_a_failed_point_exits_1_when_all_were_tried_and_the_next_tries_that_again(
    small, with_methods, tmp_path, monkeypatch, capsys
):
    _, paths = small
    there = tmp_path / "there"
    there.touch()
    failing = with_methods(
        {"outside_fails_while_there": [{"path": str(there)}], "outside_scale": [{"factor": 0.3}]}
    )
    (paths.root / "failing.yaml").write_text(yaml.safe_dump(failing.model_dump()))
    methods = ["outside_fails_while_there", "outside_scale"]
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "shrinkmark",
            "compress",
            "digits",
            *methods,
            "--params",
            str(paths.root / "failing.yaml"),
        ],
    )

    def command():
        with pytest.raises(SystemExit) as ended:
            main()
        states = [
            (record["status"], record.get("reason"))
            for record in (only_record(paths, method) for method in methods)
        ]
        return ended.value.code, capsys.readouterr().out, states

    assert command() == (
        1,
        f"digits {' '.join(methods)}: 2 run, 0 stood, 0 skipped, 1 failed\n",
        [("failed", "RuntimeError: it is still there"), ("ok", None)],
    )
    there.unlink()
    assert command() == (
        0,
        f"digits {' '.join(methods)}: 1 run, 1 stood, 0 skipped, 0 failed\n",
        [("ok", None)] * 2,
    )


def test_a_plugin_that_cannot_be_imported_ends_the_run_with_one_line(small, with_methods):
    with pytest.raises(
        UserError,
        match="cannot be imported: ImportError: cannot import name 'a_name_that_is_not_there'",
    ):
        compress(
            with_methods({"outside_broken_import": [{}]}),
            small[1],
            "digits",
            ["outside_broken_import"],
        )


def test_an_entry_point_that_is_no_method_ends_the_run_with_one_line(small, with_methods):
    with pytest.raises(UserError, match="not a class derived from"):
        compress(
            with_methods({"outside_not_a_method": [{}]}),
            small[1],
            "digits",
            ["outside_not_a_method"],
        )
