from itertools import product

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from harness.point import store
from methods.lgreco import TABLES, LGreCo, by_output, by_slope, by_weight
from methods.parts.allocation.allocate import buckets, least
from methods.parts.network.layers import feature_rows, prunable
from methods.parts.quantization.levels import BITS, budget, costs, logits, rounded, uniform
from methods.parts.training.losses import soft_loss

MODELS = ["mobilenet", "vit"]
WORKED = [[8, 4, 2], [8, 4, 2]], [[0.0, 1.0, 5.0], [0.0, 3.0, 4.0]]


def widths(model):
    return [layer.weight_codes.bits for layer in prunable(model).values()]


def average(model):
    codes = [store.codes_of(model)[f"{name}.weight"] for name in prunable(model)]
    bits = sum(
        code.bits * code.codes.numel() + 16 * code.scale.numel() + 8 * code.zero.numel()
        for code in codes
    )
    return bits / sum(code.codes.numel() for code in codes)


@pytest.mark.parametrize(("limit", "error"), [(4, 9.0), (8, 4.0), (10, 4.0), (12, 1.0), (16, 0.0)])
def test_the_table_of_two_layers(limit, error):
    sizes, errors = WORKED
    chosen = least(sizes, errors, limit)
    assert sum(errors[layer][v] for layer, v in enumerate(chosen)) == error
    assert sum(sizes[layer][v] for layer, v in enumerate(chosen)) <= limit
    if limit in (8, 12):  # the only best choice
        assert chosen == {8: [1, 1], 12: [1, 0]}[limit]


def test_a_budget_below_the_cheapest_options_is_refused():
    with pytest.raises(ValueError, match="raise the budget"):
        least(*WORKED, 3)
    with pytest.raises(ValueError, match="raise the budget"):
        buckets(WORKED[0], 3)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_as_good_as_trying_all(seed):
    random = np.random.default_rng(seed)
    sizes, errors = random.integers(0, 30, (5, 4)).tolist(), random.random((5, 4)).tolist()
    limit = int(sum(map(min, sizes)) + random.integers(0, 60))
    choices = [
        choice
        for choice in product(range(4), repeat=5)
        if sum(sizes[i][v] for i, v in enumerate(choice)) <= limit
    ]
    best = min(sum(errors[i][v] for i, v in enumerate(choice)) for choice in choices)
    chosen = least(sizes, errors, limit)
    assert tuple(chosen) in choices
    assert sum(errors[i][v] for i, v in enumerate(chosen)) == pytest.approx(best, abs=1e-12)


def test_with_roles_swapped_it_is_the_papers_least_size_for_the_error_of_a_uniform_choice():
    errors, sizes = [[9, 4, 1], [3, 2, 1], [30, 20, 10]], [[10.0, 20.0, 30.0]] * 3
    # error 22 of the 26 that all at size 20 make, size 50 instead of 60
    assert least(errors, sizes, 4 + 2 + 20) == [0, 0, 2]


def test_sizes_are_counted_in_their_common_divisor_beyond_the_cheapest():
    assert buckets([[100, 160, 400], [7, 67, 127]], 107 + 130) == ([[0, 1, 5], [0, 1, 2]], 2)
    assert buckets([[5], [7]], 12) == ([[0], [0]], 0)


def test_sizes_too_fine_for_the_table_are_rounded_so_that_the_budget_holds():
    random = np.random.default_rng(0)
    cost = (
        random.integers(1, 10**9, (6, 1)) + random.integers(1, 10**9, (6, 4)).cumsum(1)
    ).tolist()
    for limit in (sum(map(min, cost)) + 10**9, sum(map(min, cost)) + 3 * 10**9):
        sizes, left = buckets(cost, limit)
        assert left <= 100_000
        chosen = least(sizes, random.random((6, 4)).tolist(), left)
        assert sum(cost[i][v] for i, v in enumerate(chosen)) <= limit


@pytest.mark.parametrize("name", MODELS)
def test_the_total_error_is_never_above_that_of_all_layers_alike(make_small, make_data, name):
    model, data = make_small(name), make_data(name)
    dense = logits(model, data.calibration)
    options, cost = rounded(model, data.calibration[:1]), costs(model)
    for table in TABLES.values():
        errors, gained = table(model, options, data.calibration, dense), []
        for bits in (2.8, 3.4, 4.5, 6.6):
            limit = budget(model, bits)
            sizes, left = buckets(cost, limit)
            chosen, alike = least(sizes, errors, left), uniform(cost, limit)
            assert sum(options[v] for options, v in zip(cost, chosen, strict=True)) <= limit
            gained.append(
                sum(e[alike] for e in errors)
                - sum(e[v] for e, v in zip(errors, chosen, strict=True))
            )
        assert min(gained) > -1e-9 and max(gained) > 0


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bits", [3.0, 4.0])
def test_the_average_is_met_and_most_of_it_is_used(make_small, make_data, name, bits):
    model = LGreCo(bits).compress(make_small(name), make_data(name))
    assert bits - 0.1 < average(model) <= bits
    assert len(set(widths(model))) > 1


def test_the_weight_table_holds_squared_differences_and_the_output_table_those_of_the_outputs(
    make_small, make_data
):
    model, data, seen = make_small("mobilenet"), make_data("mobilenet"), []
    options = rounded(model, data.calibration[:1])
    name, layer = list(prunable(model).items())[3]
    handle = layer.register_forward_pre_hook(
        lambda module, args: seen.append(feature_rows(module, args[0]))
    )
    logits(model, data.calibration)
    handle.remove()
    delta = (layer.weight - options[name][1].decode(layer.weight.shape)).detach().flatten(1)
    rows = torch.cat(seen)
    assert by_weight(model, options, data.calibration, torch.empty(0))[3][1] == pytest.approx(
        float(delta.square().sum()), rel=1e-5
    )
    assert by_output(model, options, data.calibration, torch.empty(0))[3][1] == pytest.approx(
        float(2 * (rows @ delta.T).square().sum() / len(rows)), rel=1e-4
    )


def test_the_slope_table_is_at_three_bits_what_the_logits_lose_with_that_layer_alone(
    make_small, make_data
):
    model, data = make_small("vit"), make_data("vit")
    dense = logits(model, data.calibration)
    options = rounded(model, data.calibration[:1])
    before = {name: layer.weight.clone() for name, layer in prunable(model).items()}
    table, output = (
        by_slope(model, options, data.calibration, dense),
        by_output(model, options, data.calibration, dense),
    )
    assert all(torch.equal(layer.weight, before[name]) for name, layer in prunable(model).items())
    name = list(options)[5]
    prunable(model)[name].weight.data = options[name][BITS.index(3)].decode(before[name].shape)
    assert table[5][BITS.index(3)] == pytest.approx(
        float(soft_loss(logits(model, data.calibration), dense, 1.0)), rel=1e-4
    )
    assert table[5][0] / table[5][2] == pytest.approx(output[5][0] / output[5][2])


@pytest.mark.parametrize("error", ["weight", "output"])
def test_a_layer_ten_times_as_large_gets_more_bits_than_its_like(make_small, make_data, error):
    model = make_small("vit")
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.fc2.weight.copy_(model.blocks[0].mlp.fc2.weight)
        model.blocks[1].mlp.fc2.weight.mul_(10)
    LGreCo(3.4, error).compress(model, make_data("vit"))
    assert model.blocks[1].mlp.fc2.weight_codes.bits > model.blocks[0].mlp.fc2.weight_codes.bits


def test_the_slope_table_spends_no_bits_on_a_layer_that_the_logits_do_not_depend_on(
    make_small, make_data
):
    model = make_small("vit")
    torch.nn.init.zeros_(model.blocks[1].attn.proj.weight)  # nothing of the attention gets on
    LGreCo(4.0, "slope").compress(model, make_data("vit"))
    assert (
        model.blocks[1].attn.qkv.weight_codes.bits == 2 < model.blocks[0].attn.qkv.weight_codes.bits
    )


def test_an_average_above_eight_bits_takes_eight_and_32_keeps_the_model(make_small, make_data):
    assert set(widths(LGreCo(12).compress(make_small("vit"), make_data("vit")))) == {8}
    data = make_data("vit")
    assert (
        not store.codes_of(LGreCo(32).compress(make_small("vit"), data)) and data.images_seen == 0
    )


def test_a_budget_out_of_reach_is_skipped_and_refused(make_small, make_data):
    assert (
        "2 bits" in LGreCo(2.1).skip(make_small("vit"))
        and LGreCo(3.5).skip(make_small("vit")) is None
    )
    with pytest.raises(ValueError, match="raise the budget"):
        LGreCo(2.1).compress(make_small("vit"), make_data("vit"))


def test_settings_are_checked():
    settings = TypeAdapter(LGreCo)
    assert settings.validate_python({"average_bits": 3, "error": "weight"}) == LGreCo(3, "weight")
    for wrong in ({"average_bits": 1}, {"error": "trace"}, {"bits": 4}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
