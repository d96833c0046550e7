from copy import deepcopy
from itertools import product

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from methods.afm import AFM, candidates, dropped, weights
from methods.parts.allocation.allocate import choose
from methods.parts.low_rank.features import feature_pca, mimicking
from methods.parts.network.layers import prunable, weighted


def held(module):
    return sum(p.numel() for name, p in module.named_parameters() if not name.endswith("bias"))


def test_candidates_of_a_layer_by_hand():
    layer = nn.Linear(144, 48)  # a rank costs 192 of 6912 weights: 36 ranks, 4.5 to an eighth
    assert candidates(layer) == [4, 9, 13, 18, 22, 27, 31, 0]
    assert [weights(layer, r) for r in candidates(layer)] == [
        768,
        1728,
        2496,
        3456,
        4224,
        5184,
        5952,
        6912,
    ]
    assert candidates(nn.Linear(30, 1)) == [0]


def test_dropped_share_by_hand():
    s = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert [dropped(s, r) for r in (1, 2, 3, 4, 0)] == pytest.approx([0.6, 0.3, 0.1, 0, 0])


def test_choices_by_hand():
    costs, found = [[10, 40], [20, 60]], [[5.0, 0.0], [3.0, 0.0]]
    assert choose(costs, found, 100) == [1, 1]
    assert choose(costs, found, 99) == [1, 0]  # 3 for 60
    assert choose(costs, found, 59) == [0, 0]
    with pytest.raises(ValueError, match="29 allowed"):
        choose(costs, found, 29)


@pytest.mark.parametrize("seed", range(20))
def test_choices_equal_brute_force(seed):
    draw = np.random.default_rng(seed)
    costs = [sorted(draw.integers(1, 40, 3).tolist()) for _ in range(5)]
    found = [sorted(draw.random(3).tolist(), reverse=True) for _ in costs]
    budget = int(draw.integers(sum(row[0] for row in costs), sum(row[-1] for row in costs) + 1))
    picks = choose(costs, found, budget)
    total = {
        way: sum(row[k] for row, k in zip(found, way, strict=True))
        for way in product(range(3), repeat=5)
        if cost(costs, way) <= budget
    }
    assert cost(costs, picks) <= budget
    assert total[tuple(picks)] == pytest.approx(min(total.values()))


def cost(costs, way):
    return sum(row[k] for row, k in zip(costs, way, strict=True))


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_the_budget_is_used_and_never_exceeded(make_model, make_data, name):
    rho, data, dense = 0.6, make_data(name), make_model(name)
    # a mixer starts with zeros there: nothing moves its predictions
    nn.init.normal_(dense.get_classifier().weight)
    model = AFM(rho).compress(deepcopy(dense), data)
    total = sum(layer.weight.numel() for layer in prunable(dense).values())
    left = sum(held(model.get_submodule(key)) for key in prunable(dense))
    assert 0.97 * rho * total < left <= rho * total
    assert all(
        key in prunable(dense) or torch.equal(model.get_submodule(key).weight, layer.weight)
        for key, layer in weighted(dense).items()
    )
    assert data.images_seen == 64


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_afm_that_keeps_all_leaves_the_model_as_it_is(make_model, make_data, name):
    data = make_data(name)
    model, x = AFM(1.0).compress(make_model(name), data), data.calibration[:4]
    assert torch.equal(model(x), make_model(name)(x))


def test_a_layer_without_influence_on_the_predictions_has_the_lowest_rank(make_model, make_data):
    model, data = make_model("vit"), make_data("vit")
    model.blocks[2].mlp.fc2.weight.data.zero_()  # of this block's MLP nothing is left
    compressed = AFM(0.6).compress(model, data)
    assert compressed.blocks[2].mlp.fc1[0].out_features == 4
    assert (
        sum(
            isinstance(block.mlp.fc1, nn.Linear) or block.mlp.fc1[0].out_features > 4
            for block in compressed.blocks
        )
        == 5
    )


@pytest.mark.parametrize("statistics", ["parallel", "sequential"])
def test_statistics_are_those_of_the_original_model_or_of_what_has_been_replaced_before(
    make_model, make_data, statistics
):
    data, name = make_data("vit"), "blocks.5.mlp.fc2"  # the last layer of all
    layer, model = (
        make_model("vit").get_submodule(name),
        AFM(0.3, statistics).compress(make_model("vit"), data),
    )
    first, second = model.get_submodule(name)
    seen = make_model("vit") if statistics == "parallel" else deepcopy(model)
    seen.set_submodule(name, layer)
    expected = mimicking(
        layer, feature_pca(seen, {name: layer}, data.calibration)[name], first.out_features
    )
    x = torch.randn(9, 192, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(second(first(x)), expected(x), rtol=1e-3, atol=1e-4)
    other = (
        AFM(0.3, "sequential" if statistics == "parallel" else "parallel")
        .compress(make_model("vit"), data)
        .get_submodule(name)
    )
    assert (other(x) - expected(x)).norm() > 1e-2 * expected(x).norm()


def test_a_budget_below_the_lowest_ranks_is_a_reason_to_skip(make_model):
    assert "lowest ranks" in AFM(0.01).skip(make_model("resnet"))
    assert AFM(0.15).skip(make_model("vit")) is None


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(AFM)
    assert settings.validate_python({"rho": 0.3, "statistics": "sequential"}) == AFM(
        0.3, "sequential"
    )
    for wrong in ({"rho": 0}, {"rho": 1.5}, {"statistics": "both"}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
