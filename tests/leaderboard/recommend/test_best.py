"""The best rows for each goal in README."""

import pytest

from leaderboard.recommend.best import best, best_text, update_best
from leaderboard.records.outline import read_outline
from leaderboard.tables.build import build
from leaderboard.tables.ranking.savings import Saving
from leaderboard.tables.terminal import find_tables, read_table
from tests.conftest import ROOT


@pytest.fixture
def choice(filled):
    build(filled.root, "v1", [], filled.readme, read_outline(filled.params))
    return find_tables(filled.root, "v1", read_outline(filled.params))[0]


def test_each_method_stands_once_with_its_best_row_that_loses_little(choice):
    found = best(read_table(choice.path), Saving.BYTES)
    assert [(row.record["method"], row.record["setting"]) for row in found] == [
        ("rtn", "bits=4"),
        ("l1_channels", "keep=0.5"),
        ("wanda", "sparsity=0.5"),
    ]
    assert all(float(row.record["delta_points"]) >= -1 for row in found)


def test_the_rows_are_put_into_a_page_that_has_a_place_for_them_and_no_other(choice, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- best:begin -->\nold\n<!-- best:end -->\nafter\n")
    update_best(page, choice)
    assert page.read_text() == (
        f"before\n<!-- best:begin -->\n{best_text(choice)}\n<!-- best:end -->\nafter\n"
    )
    page.write_text("nothing to fill")
    update_best(page, choice)
    assert page.read_text() == "nothing to fill"


def test_readme_shows_the_rows_of_the_committed_tables():
    outline = read_outline(ROOT / "params.yaml")
    choice = find_tables(ROOT / "results", outline.version, outline)[0]
    assert best_text(choice) in (ROOT / "README.md").read_text()
