import pytest
import torch

from harness.point import store
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import prunable, weighted
from methods.parts.quantization.levels import (
    BITS,
    budget,
    costs,
    logits,
    out_of_reach,
    rounded,
    stored,
    uniform,
)
from methods.rtn import RTN

MODELS = ["mobilenet", "vit"]


def test_a_weight_of_three_rows_and_seventy_columns_has_a_scale_a_row_and_at_two_bits_two():
    assert stored(3, 70, 3) == 3 * 70 * 3 + 24 * 3
    assert stored(3, 70, 2) == 2 * 70 * 3 + 24 * 3 * 2
    assert stored(3, 64, 2) == 2 * 64 * 3 + 24 * 3


@pytest.mark.parametrize("name", MODELS)
def test_costs_are_what_the_codes_take(make_small, name):
    model = make_small(name)
    expected = costs(model)
    options = rounded(model, torch.zeros(1, 1, 16, 16))
    assert list(options) == list(prunable(model))
    taken = [
        [
            code.bits * code.codes.numel() + 16 * code.scale.numel() + 8 * code.zero.numel()
            for code in found
        ]
        for found in options.values()
    ]
    assert taken == expected and all(options == sorted(options) for options in taken)
    assert [code.bits for code in next(iter(options.values()))] == list(BITS)


@pytest.mark.parametrize("name", MODELS)
def test_a_level_is_what_round_to_nearest_makes_of_the_layer_and_layers_outside_get_eight_bits(
    make_small, make_data, name
):
    model = make_small(name)
    before = {
        layer: part.weight.clone()
        for layer, part in prunable(
            fold_batchnorms(make_small(name), torch.zeros(1, 1, 16, 16))
        ).items()
    }
    options = rounded(model, torch.zeros(1, 1, 16, 16))
    assert all(
        torch.equal(part.weight, before[layer]) and not hasattr(part, "weight_codes")
        for layer, part in prunable(model).items()
    )
    for bits in (2, 4):
        expected = store.codes_of(RTN(bits).compress(make_small(name), make_data(name)))
        for layer, part in weighted(model).items():
            found = options[layer][BITS.index(bits)] if layer in options else part.weight_codes
            assert torch.equal(found.codes, expected[f"{layer}.weight"].codes) and torch.equal(
                found.scale, expected[f"{layer}.weight"].scale
            )


def test_the_uniform_level_is_the_highest_that_fits():
    cost = [[2, 3, 4], [20, 30, 40]]
    assert [uniform(cost, limit) for limit in (22, 32, 33, 43, 44, 100)] == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="raise average_bits"):
        uniform(cost, 21)


def test_a_budget_below_all_layers_at_two_bits_is_out_of_reach(make_model):
    model = make_model("vit")
    least = sum(options[0] for options in costs(model)) / sum(
        layer.weight.numel() for layer in prunable(model).values()
    )
    assert 2.3 < least < 2.6
    assert out_of_reach(model, least + 1e-6) is None and f"{least:.2f}" in out_of_reach(
        model, least - 1e-6
    )
    assert budget(model, 3.00001) == 3 * 165888 + 1


def test_logits_do_not_depend_on_how_images_are_split(make_model):
    model, images = (
        make_model("resnet"),
        torch.randn(200, 1, 16, 16, generator=torch.Generator().manual_seed(0)),
    )
    torch.testing.assert_close(logits(model, images), model(images).detach())
