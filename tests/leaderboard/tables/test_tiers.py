"""Which rows are told apart at a target, and which are not."""

import io

import numpy as np
import pandas as pd
import pytest

from leaderboard.records.outline import read_outline
from leaderboard.records.results import read_track
from leaderboard.records.schema import MethodInfo
from leaderboard.records.statistics import adjust, sign_flip_p
from leaderboard.tables.build import make_tables
from leaderboard.tables.groups import find_hits
from leaderboard.tables.ranking.tiers import Contender, tiers, tiers_text
from leaderboard.tables.rows import Row


def contender(name, wrong, gain=2.0, setting="", images=400):
    """Return a row of one seed that gets `wrong` images wrong."""
    hits = np.ones((1, images), bool)
    hits[0, list(wrong)] = False
    info = MethodInfo(name=name, family="f", needs="labels", realisation="packed")
    return Contender(Row(info, "m", setting, 1, "ok", "", None), hits.mean(), gain, hits)


def places(*contenders):
    """Return (tier, method, setting) of every place."""
    return [
        (place.tier, place.contender.row.method.name, place.contender.row.setting)
        for place in tiers(contenders)
    ]


def text_of(results):
    """Return tiers.csv of the track digits."""
    content = read_track(results.root, "v1", "digits")
    return tiers_text(make_tables(content, read_outline(results.params))[0], find_hits(content))


def frame(results):
    """Return tiers.csv."""
    return pd.read_csv(io.StringIO(text_of(results)), keep_default_na=False)


BEST, CLOSE = contender("best", range(4)), contender("close", range(6))
WORSE, BESIDE, WORST = (
    contender("worse", range(60)),
    contender("beside", range(62)),
    contender("worst", range(200)),
)


def test_what_cannot_be_told_from_the_best_shares_its_tier_and_the_rest_stops_at_two():
    assert places(WORST, BESIDE, CLOSE, WORSE, BEST) == [
        (1, "best", ""),
        (1, "close", ""),
        (2, "worse", ""),
        (2, "beside", ""),
    ]


def test_p_is_adjusted_over_all_rows_of_the_comparison():
    first, second, *_ = tiers([BEST, CLOSE, WORSE, WORST])
    expected = adjust([sign_flip_p(other.hits, BEST.hits) for other in (CLOSE, WORSE, WORST)])
    assert (first.p, second.p) == (None, expected[0]) and expected[0] >= 0.05 > expected[1]


def test_a_method_has_one_place_its_most_accurate_row():
    again = contender("best", range(5), setting="b=1")
    far = contender("best", range(70), setting="b=2")
    assert places(far, again, CLOSE, WORSE, BEST) == [
        (1, "best", ""),
        (1, "close", ""),
        (2, "worse", ""),
    ]


def test_of_equal_accuracies_the_larger_ratio_is_the_best():
    assert places(BEST, contender("smaller", range(4), gain=3.0)) == [
        (1, "smaller", ""),
        (1, "best", ""),
    ]


def test_nobody_who_reaches_a_target_leaves_no_tier():
    assert places() == []


def test_the_order_of_rows_decides_nothing():
    generator = np.random.default_rng(0)
    rows = [
        contender(f"m{count}", generator.choice(400, count, replace=False))
        for count in (5, 9, 14, 30, 33, 80)
    ]
    assert places(*rows) == places(*reversed(rows))


def test_targets_take_the_rows_that_reach_them(filled):
    bytes_ = frame(filled).query("model == 'resnet' and cost == 'bytes'")
    assert list(
        bytes_[["target", "tier", "method", "ratio"]].itertuples(index=False, name=None)
    ) == [
        (2, 1, "l1_channels", 2),
        (2, 1, "rtn", 4),
        (2, 2, "wanda", 5),
        (4, 1, "rtn", 4),
        (4, 2, "wanda", 5),
        (8, 1, "rtn", 8),
    ]


def test_latency_has_no_ties_and_no_rows_that_were_not_timed(filled):
    latency = frame(filled).query("cost == 'latency'")
    # rtn ties or is slower, the vit was not timed
    assert set(zip(latency.model, latency.method, strict=True)) == {("resnet", "l1_channels")}
    assert {1.25, 1.5} <= set(latency.target)


def test_rows_that_miss_a_target_change_nothing(filled, point):
    before = text_of(filled)
    filled.write_method(
        "slim",
        [point("s", range(2), size=900, macs=90), point("t", range(50), "vit", size=990, macs=99)],
    )
    assert text_of(filled) == before == text_of(filled)


def test_columns_and_accuracy_are_those_of_the_table(filled):
    row = frame(filled).query("model == 'vit' and cost == 'macs' and target == 2").iloc[0]
    assert tuple(row[["tier", "method", "needs", "setting", "p_adjusted"]]) == (
        1,
        "l1_channels",
        "fine-tune",
        "keep=0.5",
        "",
    )
    assert (row.accuracy_percent, row.ratio) == pytest.approx((98.5, 2.0))
