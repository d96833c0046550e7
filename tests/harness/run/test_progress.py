"""The bar of a long command."""

import os
import subprocess
import sys

import pytest

from harness.run.progress import Progress, progress
from tests.conftest import ROOT


class Bar:
    """Stands for tqdm's, and remembers what it was told."""

    n, text = 0.0, ""

    def update(self, seconds):
        self.n += seconds

    def set_postfix_str(self, text, refresh):
        self.text = text


@pytest.fixture
def bar():
    return Bar()


def test_the_bar_is_of_time_and_a_job_without_a_known_time_counts_as_the_mean(monkeypatch):
    with progress(
        "digits", "point", ["a", "b", "c"], {"a": 30.0, "b": 10.0, "other": 1e6}
    ) as found:
        assert found._bar.total == 60
        found.ended("a")
        assert found._bar.n == 30
        found.ended("c")
        assert found._bar.n == 50


def test_without_known_times_each_job_counts_alike():
    with progress("digits", "point", ["a", "b"]) as found:
        found.ended("b")
        assert (found._bar.n, found._bar.total) == (1, 2)


def test_it_shows_how_many_have_ended_and_what_runs_once_it_was_taken(bar):
    shown = Progress(bar, "point", {"a": 1.0, "b": 1.0, "c": 1.0})
    assert bar.text == "0 of 3 points"
    taken = shown.started(["A", "B", "C"], str.lower)
    assert bar.text == "0 of 3 points"
    assert [next(taken), next(taken)] == ["A", "B"]
    assert bar.text == "0 of 3 points, at a, b"
    shown.ended("a")
    assert bar.text == "1 of 3 points, at b"
    shown.at("4 nodes, 1 failed")
    assert bar.text == "1 of 3 points, at 4 nodes, 1 failed"


def test_what_it_is_at_is_cut_where_it_is_long(bar):
    Progress(bar, "run", {"x" * 200: 1.0}).begun("x" * 200)
    assert bar.text == f"0 of 1 runs, at {'x' * 59}…"


@pytest.mark.parametrize(("quiet", "lines"), [("0", 1), ("1", 0)])
def test_off_a_terminal_it_writes_little_without_colours_and_nothing_if_it_is_switched_off(
    quiet, lines
):
    code = (
        "from harness.run.progress import progress\n"
        "with progress('digits', 'point', map(str, range(500))) as bar:\n"
        "    for name in bar.started(map(str, range(500)), str): bar.ended(name)\n"
    )
    environment = (
        os.environ | {"PYTHONPATH": str(ROOT)} | ({"TQDM_DISABLE": "1"} if quiet == "1" else {})
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0 and done.stdout == "" and "\x1b" not in done.stderr
    assert len(done.stderr.split()) <= 30 * lines
    assert ("500 of 500 points" in done.stderr) is bool(lines)
