"""The area under a front: against hand and grid, and what its interval means."""

import io
from dataclasses import astuple
from math import log2

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaderboard.records.outline import read_outline
from leaderboard.records.results import read_track
from leaderboard.records.schema import MethodInfo
from leaderboard.tables.build import make_tables
from leaderboard.tables.groups import find_hits
from leaderboard.tables.ranking.areas import Curve, areas, areas_text, front_shares
from leaderboard.tables.ranking.savings import Saving


def method(name):
    """Return a method that nobody needs to know more of."""
    return MethodInfo(name=name, family="f", needs="labels", realisation="packed")


def text_of(results):
    """Return areas.csv of the track digits."""
    content = read_track(results.root, "v1", "digits")
    return areas_text(make_tables(content, read_outline(results.params))[0], find_hits(content))


def frame(results):
    """Return areas.csv by method and cost."""
    return pd.read_csv(io.StringIO(text_of(results))).set_index(["method", "cost"])


def test_a_step_front_has_the_area_computed_by_hand():
    shares = front_shares([2, 4, 8], [0.9, 0.8, 0.5], 16)
    # log2 x from 0 to 1, 2, 3 of 4; the rest is left to chance
    assert shares == pytest.approx([0.25, 0.25, 0.25])
    assert shares @ [0.9, 0.8, 0.5] + (1 - shares.sum()) * 0.1 == pytest.approx(0.575)


def test_dominated_rows_have_no_share_and_change_none():
    alone = front_shares([2, 8], [0.9, 0.5], 16)
    assert front_shares([2, 8, 4, 1.5, 2], [0.9, 0.5, 0.4, 0.9, 0.9], 16) == pytest.approx(
        [*alone, 0, 0, 0]
    )


def test_ratios_beyond_the_end_are_cut_and_those_up_to_one_have_no_share():
    assert front_shares([64, 1, 0.5], [0.5, 0.9, 1.0], 16) == pytest.approx([1, 0, 0])


@given(st.lists(st.tuples(st.integers(-4, 20), st.integers(0, 10)), min_size=1, max_size=8))
@settings(max_examples=60)
def test_shares_integrate_the_step_function_like_a_grid_that_holds_every_step(points):
    ratios, accuracies = (
        [2 ** (quarters / 4) for quarters, _ in points],
        [tenths / 10 for _, tenths in points],
    )
    shares = front_shares(ratios, accuracies, 16)
    # of the 16 quarters of an octave from 1 to 16, between which nothing steps
    middles = 2 ** (np.arange(0.5, 16) / 4)
    f = [
        max((a for r, a in zip(ratios, accuracies, strict=True) if r >= x), default=0.05)
        for x in middles
    ]
    assert shares @ accuracies + (1 - shares.sum()) * 0.05 == pytest.approx(np.mean(f))


def test_an_area_is_over_dense_and_says_how_many_models_it_rests_on(filled):
    # 4 x at 98 %, 8 x at 97 %, 12.5 x at 70 %, dense 98 %, ten classes; failed on the
    # vit
    row = frame(filled).loc["rtn", "bytes"]
    expected = (2 * 0.98 + 0.97 + (log2(12.5) - 3) * 0.7 + (4 - log2(12.5)) * 0.1) / 4 / 0.98
    assert row.area == pytest.approx(expected, abs=1e-4) and row.area_low < row.area < row.area_high
    assert (row.models, row.models_of) == (1, 2)


def test_a_method_that_saves_none_of_a_cost_is_at_chance(filled):
    assert frame(filled).loc["rtn", "macs"].area == pytest.approx(0.1 / 0.98, abs=1e-4)


def test_seeds_are_averaged_and_models_too(filled):
    row = frame(filled).loc["l1_channels", "bytes"]  # 2 x on both: 197 and 196 of 200, and 197
    assert row.area == pytest.approx(
        np.mean([(0.9825 + 3 * 0.1) / 4, (0.985 + 3 * 0.1) / 4]) / 0.98, abs=1e-4
    )
    assert (row.models, row.models_of) == (2, 2)


def test_a_dominated_row_changes_nothing(filled, point):
    before = frame(filled).loc["l1_channels"]
    again = [
        point("l", range(3), "vit", setting={"keep": 0.5}, size=500, macs=50),
        point("x", range(9), "vit", setting={"keep": 0.9}, size=900, macs=90),
    ]
    filled.write_method("l1_channels", again, needs="fine-tune", stochastic=True, family="pruning")
    with_one = frame(filled).loc["l1_channels"]
    filled.write_method(
        "l1_channels", again[:1], needs="fine-tune", stochastic=True, family="pruning"
    )
    assert with_one.equals(frame(filled).loc["l1_channels"]) and not with_one.equals(before)


def test_areas_are_sorted_by_needs_then_cost_then_area_and_the_same_bytes_each_time(filled):
    found = pd.read_csv(io.StringIO(text_of(filled)))
    assert list(zip(found.needs, found.cost, strict=True)) == sorted(
        zip(found.needs, found.cost, strict=True)
    )
    assert all(part.area.is_monotonic_decreasing for _, part in found.groupby(["needs", "cost"]))
    assert text_of(filled) == text_of(filled)


def test_equal_curves_have_equal_intervals_whoever_else_is_there():
    generator = np.random.default_rng(0)
    scores, dense = generator.random(300), {"m": np.ones(300)}
    twins = [Curve(method(name), Saving.BYTES, "m", scores) for name in ("a", "b")]
    other = Curve(method("c"), Saving.BYTES, "m", generator.random(300))
    (_, first), (_, second), _ = areas([*twins, other], dense)
    (_, alone), *_ = areas(twins[:1], dense)
    assert astuple(first) == pytest.approx(astuple(alone)) and astuple(second) == pytest.approx(
        astuple(alone)
    )


@pytest.mark.filterwarnings("error")
def test_a_model_whose_dense_gets_no_image_right_has_no_part_in_an_area():
    scores = np.full(50, 0.1)
    curves = [Curve(method("a"), Saving.BYTES, model, scores) for model in ("m", "n")]
    right = np.ones(50)
    ((members, found),) = areas(curves, {"m": right, "n": 0 * right})
    assert [curve.model for curve in members] == ["m"] and astuple(found) == pytest.approx(
        (0.1, 0.1, 0.1)
    )
    assert areas(curves, {"m": 0 * right, "n": 0 * right}) == []
    assert astuple(
        areas([Curve(method("a"), Saving.BYTES, "m", 0 * scores)], {"m": right})[0][1]
    ) == (0, 0, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("right", [1, 2])
def test_an_interval_is_finite_where_some_resamples_of_dense_have_no_image_right(right):
    dense = 1.0 * (np.arange(200) < right)
    ((_, found),) = areas([Curve(method("a"), Saving.BYTES, "m", dense)], {"m": dense})
    assert astuple(found) == (1, 1, 1)
    ((_, found),) = areas([Curve(method("a"), Saving.BYTES, "m", np.full(200, 0.5))], {"m": dense})
    assert (
        found.value == pytest.approx(100 / right)
        and 0 < found.low < found.value <= found.high <= 100
    )


@pytest.mark.filterwarnings("error")
def test_areas_are_written_without_a_warning_where_a_dense_gets_nothing_right(filled, point):
    filled.write_method("dense", [point("d-r", range(4)), point("d-v", range(200), "vit")])
    row = frame(filled).loc["l1_channels", "bytes"]
    assert row.area == pytest.approx((0.9825 + 3 * 0.1) / 4 / 0.98, abs=1e-4) and np.isfinite(
        row.area_high
    )
    assert (row.models, row.models_of) == (1, 2)


def test_the_interval_covers_the_true_area_as_often_as_it_says():
    generator = np.random.default_rng(1)
    truth = np.mean([(0.25 * 0.8 + 0.75 * 0.5) / 0.9, (0.5 * 0.7 + 0.5 * 0.1) / 0.9])
    covered = 0
    for _ in range(100):
        # how hard an image is: rows, models and dense fail on the same ones
        hard = generator.random(300)
        curves = [
            Curve(method("a"), Saving.BYTES, "m", 0.25 * (hard < 0.8) + 0.75 * (hard < 0.5)),
            Curve(method("a"), Saving.BYTES, "n", 0.5 * (generator.random(300) < 0.7) + 0.5 * 0.1),
        ]
        ((_, found),) = areas(curves, dict.fromkeys(("m", "n"), 1.0 * (hard < 0.9)))
        covered += found.low <= truth <= found.high
    assert 88 <= covered <= 100 and found.high - found.low > 0.02
