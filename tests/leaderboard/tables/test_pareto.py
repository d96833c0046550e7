"""Fronts and marks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboard.records.outline import read_outline
from leaderboard.tables.build import track_tables
from leaderboard.tables.ranking.pareto import front


def test_dominated_points_are_off_the_front():
    assert front([0.9, 0.8, 0.85, 0.7], [10, 5, 10, 5], 0) == (True, True, False, False)


def test_points_that_tie_on_both_axes_all_stay():
    assert front([0.9, 0.9, 0.9], [5, 5, 6], 0) == (True, True, False)


def test_an_empty_front_is_empty():
    assert front([], [], 0) == ()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_the_most_accurate_of_the_cheapest_is_always_on_the_front(points):
    members = front(*zip(*points, strict=True), 0)
    cheapest = min(points, key=lambda point: (point[1], -point[0]))
    assert members[points.index(cheapest)]


def test_costs_within_the_noise_are_not_ranked():
    # not really faster, and less accurate
    assert front([0.9, 0.8], [1.01, 1.0], 0.02) == (True, False)
    assert front([0.9, 0.9], [1.01, 1.0], 0.02) == (True, True)
    assert front([0.9, 0.8], [1.03, 1.0], 0.02) == (True, True)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.5, 2)), min_size=1), st.floats(0, 0.5))
def test_noise_never_empties_the_front(points, noise):
    assert any(front(*zip(*points, strict=True), noise))


@pytest.fixture
def rows(filled):
    """The rows of the filled results by (model, method, setting)."""
    table = track_tables(filled.root, "v1", "digits", read_outline(filled.params))[0]
    return {(row.model, row.method.name, row.setting): row for row in table.rows}


def test_membership_is_per_model_and_axis(rows):
    assert "bytes" in rows["resnet", "rtn", "bits=8"].pareto
    # rtn at 8 bits is as accurate and smaller
    assert "bytes" not in rows["resnet", "dense", ""].pareto
    assert rows["vit", "l1_channels", "keep=0.5"].pareto == ("bytes", "macs")  # not timed


def test_lost_rows_are_members_of_nothing(rows):
    assert rows["vit", "rtn", "bits=8"].pareto == ()


def test_a_tie_in_latency_counts_as_dense(rows):
    assert "latency" in rows["resnet", "l1_channels", "keep=0.5"].pareto
    assert ("latency" in rows["resnet", "rtn", "bits=8"].pareto) == (
        "latency" in rows["resnet", "dense", ""].pareto
    )


def test_best_size_is_the_smallest_without_a_significant_loss(rows):
    assert rows["resnet", "rtn", "bits=4"].best == ("size",)
    assert rows["resnet", "rtn", "bits=2"].best == ()  # smaller, but far less accurate


def test_best_is_per_needs_class(rows):
    assert rows["resnet", "wanda", "sparsity=0.5"].best == ("size",)
    assert rows["resnet", "l1_channels", "keep=0.5"].best == ("size", "speed")


def test_dense_is_best_at_nothing(rows):
    assert rows["resnet", "dense", ""].best == ()


def test_speedups_within_the_floor_of_the_best_share_its_mark(filled, point):
    filled.write_method(
        "slim",
        [point("s", range(4), size=900), point("t", range(4), setting={"width": 0.9}, size=900)],
        needs="fine-tune",
    )
    filled.time("slim", "s", 0.5002)
    filled.time("slim", "t", 0.6)
    filled.write_latency()
    table = track_tables(filled.root, "v1", "digits", read_outline(filled.params))[0]
    speed = {(row.method.name, row.setting) for row in table.rows if "speed" in row.best}
    assert speed == {("l1_channels", "keep=0.5"), ("slim", "")}


def test_a_row_significantly_above_dense_may_be_best(filled, point):
    filled.write_method("dense", [point("d-r", range(60)), point("d-v", range(4), "vit")])
    filled.write_method("slim", [point("s", range(4), size=400)], needs="scratch")
    rows = track_tables(filled.root, "v1", "digits", read_outline(filled.params))[0].rows
    slim = next(row for row in rows if row.method.name == "slim")
    assert slim.measured.quality.adjusted_p < 0.001
    assert slim.best == ("size",)
