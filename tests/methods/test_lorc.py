import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from harness.point import counter, store
from methods.lorc import Compensated, LoRC, affordable, compensated, factors
from methods.parts.network.layers import prunable, weighted
from methods.parts.quantization.quantize import round_to_nearest, rule


def matrix(m, n, seed=0):
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


def rounding_error(W, bits):
    return W - round_to_nearest(W, rule(bits, W.shape[1])).decode(W.shape)


def test_squared_error_is_the_sum_of_the_dropped_squares_and_falls_to_zero_with_the_rank():
    E = rounding_error(matrix(8, 8), 4)
    errors = []
    for m in range(9):
        A, B = factors(E, m)
        errors.append((E - A @ B).square().sum().item())
        assert errors[-1] == pytest.approx(
            torch.linalg.svdvals(E)[m:].square().sum().item(), rel=1e-5, abs=1e-9
        )
        torch.testing.assert_close(A.norm(dim=0), B.norm(dim=1))  # each factor gets the square root
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.01


def test_a_planted_error_of_rank_one_is_found():
    E = matrix(20, 1) @ matrix(1, 30, seed=1)
    A, B = factors(E, 1)
    torch.testing.assert_close(A @ B, E)


def test_the_rank_is_the_largest_that_adds_at_most_one_bit_per_weight():
    assert affordable(8, 48, 48) == 2  # 48 * 48 / (8 * 96 + 48) = 2.8
    assert affordable(1, 48, 48) == 1
    assert affordable(8, 8, 72) == 0
    assert affordable(8, 768, 768) == 8


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_corrected_linear_comes_closer_than_rounding_and_adds_the_nearest_matrix_up_to_8_bits(
    bits,
):
    layer, x = nn.Linear(96, 64), matrix(7, 96, seed=1)
    W = layer.weight.detach().clone()
    E = rounding_error(W, bits)
    A, B = factors(E, 3)
    y, best = layer(x), nn.functional.linear(x, W - E + A @ B, layer.bias)
    found = compensated(layer, bits, 3)
    assert (found(x) - best).norm() < 0.02 * (nn.functional.linear(x, W - E, layer.bias) - y).norm()
    after = W - found.base.weight - found.A.weight.T @ found.B.weight
    assert after.norm() < 0.97 * E.norm()


@pytest.mark.parametrize("stride", [1, (2, 1)])
@pytest.mark.parametrize("padding", [0, (1, 2)])
@pytest.mark.parametrize("dilation", [1, (1, 2)])
def test_a_corrected_convolution_computes_the_sum_of_its_two_weights(stride, padding, dilation):
    conv = nn.Conv2d(16, 24, 3, stride, padding, dilation)
    settings = conv.stride, conv.padding, conv.dilation
    found, x = (
        compensated(conv, 3, 2),
        torch.randn(2, 16, 9, 9, generator=torch.Generator().manual_seed(1)),
    )
    W = found.base.weight + (found.A.weight.flatten(1).T @ found.B.weight.flatten(1)).view_as(
        found.base.weight
    )
    torch.testing.assert_close(
        found(x), nn.functional.conv2d(x, W, found.base.bias, *settings), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_every_weight_is_stored_as_codes_and_the_correction_costs_two_products(
    make_model, make_data, name, track_data
):
    dense = make_model(name)
    model = LoRC(3, 2).compress(make_model(name), make_data(name))
    codes = store.codes_of(model)
    for key, layer in weighted(dense).items():
        inner = key in prunable(dense)
        here = model.get_submodule(key)
        rank = affordable(2, *layer.weight.flatten(1).shape) if inner else 0
        assert isinstance(here, Compensated) == (rank > 0)
        assert codes[f"{key}.base.weight" if rank else f"{key}.weight"].bits == (3 if inner else 8)
        if rank:
            assert codes[f"{key}.A.weight"].bits == codes[f"{key}.B.weight"].bits == 8
            assert (
                len(codes[f"{key}.A.weight"].scale) == len(codes[f"{key}.B.weight"].scale) == rank
            )
    images = track_data.validation.images[:2]
    operators = [
        counter.count(store.export(m, images).module(), images).operators for m in (dense, model)
    ]
    pairs = sum(isinstance(module, Compensated) for module in model.modules())
    assert pairs > 0 and len(operators[1]) == len(operators[0]) + 2 * pairs


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(LoRC)
    assert settings.validate_python({"base_bits": 3, "rank": 2}) == LoRC(3, 2)
    for wrong in ({"base_bits": 1}, {"rank": 0}, {"bits": 4}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
