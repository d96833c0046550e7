"""Fronts, intervals, tests and claims against slow references, for any input."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from leaderboard.records.statistics import adjust, median, sign_flip_p, wilson
from leaderboard.tables.promised_size import claimed_ratio
from leaderboard.tables.ranking.pareto import front

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), max_size=12)


@given(POINTS)
def test_the_front_is_what_no_other_point_beats(points):
    beaten = [
        any(a >= mine and c <= own and (a, c) != (mine, own) for a, c in points)
        for mine, own in points
    ]
    assert front([a for a, _ in points], [c for _, c in points], 0) == tuple(
        not lost for lost in beaten
    )


@given(POINTS, st.randoms())
def test_the_front_does_not_depend_on_the_order(points, generator):
    order = list(range(len(points)))
    generator.shuffle(order)
    whole = front([a for a, _ in points], [c for _, c in points], 0)
    assert front([points[i][0] for i in order], [points[i][1] for i in order], 0) == tuple(
        whole[i] for i in order
    )


@pytest.mark.parametrize("images", [20, 100, 540])
@pytest.mark.parametrize("truth", [0.1, 0.5, 0.9, 0.98])
def test_the_interval_of_an_accuracy_covers_the_truth_as_often_as_it_says(images, truth):
    covered = [
        found.low <= truth <= found.high
        for found in (wilson(correct, images) for correct in range(images + 1))
    ]
    assert 0.90 <= float(np.sum(binom.pmf(np.arange(images + 1), images, truth) * covered)) <= 0.995


@given(
    st.integers(1, 1000).flatmap(lambda images: st.tuples(st.integers(0, images), st.just(images)))
)
def test_an_interval_holds_its_value_and_lies_between_none_and_all(case):
    found = wilson(*case)
    assert 0 <= found.low <= found.value + 1e-12 and found.value - 1e-12 <= found.high <= 1


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(1, 9), st.integers(0, 2**16))
def test_the_p_of_a_difference_is_that_of_all_sign_flips_enumerated(seeds, of_dense, images, seed):
    generator = np.random.default_rng(seed)
    correct, dense = (
        generator.random((seeds, images)) < 0.6,
        generator.random((of_dense, images)) < 0.7,
    )
    differences = of_dense * correct.sum(0) - seeds * dense.sum(0)
    signs = np.array(np.meshgrid(*[[-1, 1]] * images)).reshape(images, -1)
    assert sign_flip_p(correct, dense) == pytest.approx(
        np.mean(np.abs(differences @ signs) >= abs(differences.sum())), abs=1e-9
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_p_values_are_the_step_up_of_benjamini_and_hochberg(values):
    ranked = sorted(values)
    least = [
        min(len(ranked) * p / (rank + 1) for rank, p in enumerate(ranked) if p >= value)
        for value in values
    ]
    assert adjust(values) == pytest.approx([min(1.0, p) for p in least], abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40))
def test_the_interval_of_a_median_is_made_of_the_values(values):
    found = median(np.array(values))
    assert min(values) <= found.low <= found.high <= max(values) and found.value == np.median(
        values
    )


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "bits": st.integers(1, 32),
            "sparsity": st.floats(0, 0.99),
            "steps": st.integers(0, 9),
        },
    )
)
def test_a_claim_is_the_product_of_what_the_setting_names(setting):
    parts = [32 / setting["bits"]] if "bits" in setting else []
    parts += [1 / (1 - setting["sparsity"])] if "sparsity" in setting else []
    assert claimed_ratio(setting) == (pytest.approx(prod(parts)) if parts else None)
    assert claimed_ratio(
        {f"step.{name}": value for name, value in setting.items()}
    ) == claimed_ratio(setting)
    assert claimed_ratio(setting | {"macs": 0.5}) is None
