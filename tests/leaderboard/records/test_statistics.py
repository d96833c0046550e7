"""Intervals and tests against closed forms and simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest

from leaderboard.records.statistics import (
    Estimate,
    adjust,
    is_tie,
    median,
    noise_floor,
    paired_difference,
    paired_ratios,
    resampled_means,
    sign_flip_p,
    stars,
    wilson,
)


def pair(only_dense, only_method, images=540):
    """Return (1, images) correctness of a method and of dense with so many discordant
    images.
    """
    method, dense = np.ones((1, images), bool), np.ones((1, images), bool)
    method[0, :only_dense] = False
    dense[0, only_dense : only_dense + only_method] = False
    return method, dense


@pytest.mark.parametrize("correct", [0, 1, 270, 530, 540])
def test_wilson_equals_scipy(correct):
    expected = binomtest(correct, 540).proportion_ci(method="wilson")
    found = wilson(correct, 540)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.value == correct / 540


def test_an_accuracy_lies_within_its_interval_also_where_all_or_none_are_right():
    found = [wilson(correct, images) for images in range(1, 80) for correct in (0, 1, images)]
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in found)


def test_wilson_takes_a_mean_over_seeds():
    assert wilson(530, 540).low < wilson(530.5, 540).low < wilson(531, 540).low


@pytest.mark.parametrize("discordant", [(0, 0), (1, 0), (3, 9), (9, 3), (5, 5), (40, 2)])
def test_p_of_one_seed_is_exact_mcnemar(discordant):
    expected = binomtest(discordant[0], sum(discordant)).pvalue if sum(discordant) else 1.0
    assert sign_flip_p(*pair(*discordant)) == pytest.approx(expected, rel=1e-9)


def test_p_of_several_seeds_equals_all_sign_flips_enumerated():
    generator = np.random.default_rng(1)
    correct, dense = generator.random((3, 12)) < 0.6, generator.random((1, 12)) < 0.8
    differences = correct.sum(0) - 3 * dense[0].astype(int)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 12)).reshape(12, -1)
    expected = np.mean(np.abs(differences @ signs) >= abs(differences.sum()))
    assert sign_flip_p(correct, dense) == pytest.approx(expected, abs=1e-12)


def test_p_is_not_made_smaller_by_repeating_a_seed():
    method, dense = pair(9, 3)
    assert sign_flip_p(np.repeat(method, 3, axis=0), dense) == pytest.approx(
        sign_flip_p(method, dense), abs=1e-12
    )


def test_p_rejects_a_true_null_as_rarely_as_it_says():
    generator = np.random.default_rng(2)
    rejected = [
        sign_flip_p(generator.random((3, 200)) < 0.9, generator.random((1, 200)) < 0.9) < 0.05
        for _ in range(400)
    ]
    assert 0.01 < np.mean(rejected) < 0.08


def test_paired_difference_matches_the_normal_approximation():
    found = paired_difference(*pair(60, 20))
    spread = 1.96 * np.sqrt((80 / 540 - (40 / 540) ** 2) / 540)
    assert found.value == pytest.approx(-40 / 540)
    assert (found.low, found.high) == pytest.approx(
        (-40 / 540 - spread, -40 / 540 + spread), abs=0.003
    )


def test_paired_difference_equals_resampling_images_one_by_one():
    generator = np.random.default_rng(3)
    correct, dense = generator.random((3, 100)) < 0.85, generator.random((1, 100)) < 0.9
    difference = correct.astype(float) - dense
    drawn = [
        difference[generator.integers(3, size=3)][:, generator.integers(100, size=100)].mean()
        for _ in range(10_000)
    ]
    found = paired_difference(correct, dense)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.01
    )


def test_paired_difference_is_wider_when_seeds_disagree():
    good, bad = pair(0, 0)[0], pair(100, 0)[0]
    dense = pair(0, 0)[1]
    mixed = paired_difference(np.concatenate([good, bad]), dense)
    assert mixed.high - mixed.low > 0.15


def test_equal_predictions_differ_by_nothing():
    assert paired_difference(*pair(0, 0)) == Estimate(0.0, 0.0, 0.0)


def test_adjusted_p_values_follow_benjamini_hochberg():
    assert adjust([0.01, 0.04, 0.03, 0.5]) == pytest.approx((0.04, 0.16 / 3, 0.16 / 3, 0.5))
    assert adjust([]) == ()


@pytest.mark.parametrize(
    ("p", "mark"), [(None, ""), (0.05, ""), (0.04, "*"), (0.009, "**"), (0.0001, "***")]
)
def test_stars_mark_significance(p, mark):
    assert stars(p) == mark


@pytest.mark.parametrize("n", [1, 2, 7, 30, 31])
def test_median_interval_equals_resampling_every_value(n):
    values = np.random.default_rng(n).lognormal(size=n)
    drawn = np.median(np.random.default_rng(9).choice(values, (40_000, n)), axis=1)
    found = median(values)
    assert found.value == np.median(values)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(drawn, [0.025, 0.975])), rel=0.06
    )


def test_speedup_cancels_a_drift_of_the_machine():
    drift = np.linspace(1, 3, 21)
    point = 0.5 * (drift[:-1] + drift[1:]) / 2
    assert paired_ratios(drift, point) == pytest.approx(np.full(20, 2.0))


def test_noise_floor_is_the_farthest_end_of_the_controls():
    assert noise_floor([Estimate(1.0, 0.97, 1.01), Estimate(1.02, 1.0, 1.04)]) == pytest.approx(
        0.04
    )


@pytest.mark.parametrize(
    ("speedup", "tie"),
    [
        (Estimate(1.02, 1.01, 1.03), True),
        (Estimate(0.98, 0.97, 0.99), True),
        (Estimate(1.1, 0.99, 1.2), True),
        (Estimate(1.1, 1.05, 1.2), False),
        (Estimate(0.9, 0.85, 0.95), False),
    ],
)
def test_a_speedup_within_the_floor_or_around_one_is_a_tie(speedup, tie):
    assert is_tie(speedup, 0.03) is tie


def test_resampled_means_spread_as_means_do_and_draw_the_same_images_for_every_column():
    right = (np.arange(400) < 300).astype(float)
    values = np.stack([right, 1 - right, np.full(400, 0.3)], axis=1)
    means = resampled_means(values, 1_050)  # more than whole blocks
    assert means.shape == (1_050, 3) and means.std(axis=0)[0] == pytest.approx(
        np.sqrt(0.75 * 0.25 / 400), rel=0.1
    )
    assert means[:, 0] + means[:, 1] == pytest.approx(1) and means[:, 2] == pytest.approx(0.3)
    assert np.array_equal(means, resampled_means(values, 1_050))
