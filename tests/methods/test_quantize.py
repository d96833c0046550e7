from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from methods import store_as_codes
from methods.parts.quantization.quantize import (
    Rule,
    asymmetric,
    minmax,
    mse,
    round_to_nearest,
    rule,
    rules,
    symmetric,
)

FITS = [partial(search, place) for search in (minmax, mse) for place in (symmetric, asymmetric)]
SEEDS = st.integers(0, 2**16)
quick = settings(max_examples=25, deadline=None)


def weight(seed, rows=4, columns=30):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_three_bit_symmetric_grid_rounds_the_row():
    codes = round_to_nearest(
        torch.tensor([[-1.0, 0.6, 0.2]]), Rule(3, 3, partial(minmax, symmetric))
    )
    assert (codes.codes.int() - codes.zero).tolist() == [[-3, 2, 1]]
    # s = 1/3 in float16
    torch.testing.assert_close(
        codes.decode(torch.Size([1, 3])), torch.tensor([[-1.0, 2 / 3, 1 / 3]]), atol=3e-4, rtol=0
    )


@pytest.mark.parametrize("search", [minmax, mse])
def test_two_bit_asymmetric_grid_holds_zero_to_three_exactly(search):
    w = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert torch.equal(
        round_to_nearest(w, Rule(2, 4, partial(search, asymmetric))).decode(w.shape), w
    )


def test_two_bit_symmetric_grid_is_ternary():
    codes = round_to_nearest(weight(0), Rule(2, 30, partial(minmax, symmetric)))
    assert set(codes.codes.unique().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("value", [0.0, 0.25, -3.0, 1e-12, 1e6])
def test_constant_rows_keep_their_sign_and_stay_finite(fit, value):
    w = torch.full((2, 5), value)
    decoded = round_to_nearest(w, Rule(4, 5, fit)).decode(w.shape)
    assert decoded.isfinite().all()
    assert (decoded * w >= 0).all()
    if abs(value) < 10:  # a scale beyond float16 clips
        torch.testing.assert_close(decoded, w, rtol=1e-3, atol=1e-6)


@quick
@given(
    SEEDS,
    st.sampled_from(FITS),
    st.integers(2, 8),
    st.sampled_from([7, 16, 30]),
    st.floats(1e-5, 1e3),
)
def test_unclipped_weights_move_by_at_most_half_a_step(seed, fit, bits, group, spread):
    w = spread * weight(seed)
    codes = round_to_nearest(w, Rule(bits, group, fit))
    step = codes.scale.float().repeat_interleave(group, 1)[:, :30]
    zero = codes.zero.float().repeat_interleave(group, 1)[:, :30]
    top = 2**bits - 1 if fit.args == (asymmetric,) else 2**bits - 2
    inside = ((w / step).round() + zero >= 0) & ((w / step).round() + zero <= top)
    error = (codes.decode(w.shape) - w).abs()
    assert codes.codes.max() <= top
    assert (error[inside] <= step[inside] / 2 * (1 + 1e-4)).all()


@quick
@given(SEEDS, st.sampled_from(FITS), st.integers(2, 8), st.integers(-4, 4))
def test_scaling_the_weights_by_a_power_of_two_scales_what_they_become(seed, fit, bits, power):
    w, how = weight(seed), Rule(bits, 16, fit)
    assert torch.equal(
        round_to_nearest(w * 2.0**power, how).decode(w.shape),
        round_to_nearest(w, how).decode(w.shape) * 2.0**power,
    )


@quick
@given(SEEDS, st.sampled_from([symmetric, asymmetric]), st.integers(2, 8))
def test_searched_range_is_never_worse_than_min_max_in_its_own_norm(seed, place, bits):
    w = weight(seed)
    searched, widest = mse(place, w, bits), minmax(place, w, bits)
    assert (
        (searched.nearest(w) - w).abs().pow(2.4).mean(1)
        <= (widest.nearest(w) - w).abs().pow(2.4).mean(1)
    ).all()


@quick
@given(SEEDS, st.sampled_from(FITS), st.integers(2, 8))
def test_grid_and_stored_codes_decode_to_the_same_bits(seed, fit, bits):
    w = weight(seed)
    assert torch.equal(
        round_to_nearest(w, Rule(bits, 30, fit)).decode(w.shape), fit(w, bits).nearest(w)
    )


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_grids_agree_with_torch_fake_quantisation(fit, bits):
    w = weight(1, 16, 50)
    grid = fit(w, bits)
    theirs = torch.fake_quantize_per_channel_affine(
        w, grid.scale[:, 0], grid.zero[:, 0].int(), 0, 0, grid.top
    )
    torch.testing.assert_close(grid.nearest(w), theirs, rtol=0, atol=1e-6)


def test_a_shorter_last_group_has_its_own_scale():
    w = torch.cat([weight(0, 3, 64), 100 * weight(1, 3, 6)], 1)
    codes = round_to_nearest(w, rule(2, 70))
    assert codes.group == 64
    assert codes.scale.shape == codes.zero.shape == (3, 2)
    assert torch.equal(
        codes.decode(w.shape)[:, 64:],
        round_to_nearest(w[:, 64:], rule(2, 6)).decode(torch.Size([3, 6])),
    )


def test_codes_have_the_stored_types_and_fill_a_convolution():
    conv = nn.Conv2d(3, 4, 3)
    codes = round_to_nearest(conv.weight.flatten(1), rule(4, 27))
    assert (codes.codes.dtype, codes.scale.dtype, codes.zero.dtype) == (
        torch.uint8,
        torch.float16,
        torch.uint8,
    )
    store_as_codes(conv, codes)
    assert torch.equal(conv.weight, codes.decode(conv.weight.shape))


def test_stem_classifier_and_depthwise_layers_get_eight_bits():
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 100, 1),
        nn.Conv2d(100, 4, 1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    found = rules(model, 2)
    assert {name: how.bits for name, how in found.items()} == {
        "0": 8,
        "1": 8,
        "2": 2,
        "3": 2,
        "5": 8,
    }
    assert {name: how.group for name, how in found.items()} == {
        "0": 9,
        "1": 9,
        "2": 8,
        "3": 64,
        "5": 4,
    }
