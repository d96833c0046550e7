"""The best rows for each goal in README."""

import pytest

from leaderboard.recommend.best import best, best_text, first_tables, update_best
from leaderboard.records.outline import read_outline
from leaderboard.tables.build import build
from leaderboard.tables.ranking.savings import Saving
from leaderboard.tables.terminal import find_tables, read_table
from tests.conftest import ROOT


def tables_of(results):
    """Build all tracks and return the first table of each."""
    outline = read_outline(results.params)
    build(results.root, "v1", [], results.readme, outline)
    return first_tables(find_tables(results.root, "v1", outline))


@pytest.fixture
def choice(filled):
    return tables_of(filled)[0]


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
    update_best(page, [choice])
    assert page.read_text() == (
        f"before\n<!-- best:begin -->\n{best_text(choice, page)}\n<!-- best:end -->\nafter\n"
    )
    page.write_text("nothing to fill")
    update_best(page, [choice])
    assert page.read_text() == "nothing to fill"


def test_a_row_that_gains_nothing_is_not_among_the_best_of_its_goal(choice):
    records = read_table(choice.path)
    assert [row.record["method"] for row in best(records, Saving.MACS)] == ["l1_channels"]
    assert [row.record["method"] for row in best(records, Saving.LATENCY)] == ["l1_channels"]


def test_a_goal_that_no_row_meets_says_so(results, point):
    results.write_dense_alone("digits")
    [choice] = tables_of(results)
    lines = [line.split("|")[1:4] for line in best_text(choice, results.readme).splitlines()[-3:]]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["smallest", "none", ""],
        ["fewest MACs", "none", ""],
        ["fastest", "none", ""],
    ]


def test_the_text_names_data_and_models_and_says_what_the_split_can_show(filled):
    filled.write_track(
        title="Birds (200 images, a selection)",
        models={
            name: {"timm": f"{name}_tiny.in1k", "scratch_epochs": 0, "fine_tune_epochs": 0}
            for name in ("resnet", "vit")
        },
    )
    [choice] = tables_of(filled)
    text = best_text(choice, filled.readme)
    assert (
        "digits: Birds (200 images, a selection); models resnet (resnet_tiny.in1k), vit "
        "(vit_tiny.in1k). Resolution: one of 200 test images is 0.50 points, a difference that "
        "rests on fewer than 6 images is never significant, the 95 % interval of dense is up to "
        "±2.1 points. Calibrated on 10 images. Budgets in epochs: none, nothing is trained: "
        "methods that train are skipped (resnet, vit). Below, of each method its best row that "
        "loses at most 1 point of accuracy; ratios are dense / compressed, speed-up on cpu, one "
        "image.\n"
    ) in text
    assert text.startswith("![") and "](results/v1/digits/tables/accuracy.svg)" in text
    assert "](../results/v1/digits/tables/" in best_text(choice, filled.readme.parent / "docs/x.md")


def test_readme_shows_the_rows_of_the_committed_tables_of_the_track_shown_first():
    outline = read_outline(ROOT / "params.yaml")
    tables = first_tables(find_tables(ROOT / "results", outline.version, outline))
    assert best_text(tables[0], ROOT / "README.md") in (ROOT / "README.md").read_text()
    page = ROOT / "docs" / "results.md"
    assert "\n\n".join(best_text(choice, page) for choice in tables) in page.read_text()


def test_readme_has_room_for_all_rows_of_whatever_track_is_shown_first(choice):
    """Beside the rows of the table: its plot, text and head, and lines between them."""
    page = (ROOT / "README.md").read_text()
    start, end = page.index("<!-- best:begin -->"), page.index("<!-- best:end -->")
    around = len((page[:start] + page[end:]).splitlines())
    assert around + 1 + 6 + 5 * 3 <= 150
