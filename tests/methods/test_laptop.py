"""LAPTOP-Diff: the knapsack, the additivity that it rests on, the feature losses, and
the budget.
"""

import copy
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from methods.laptop import (
    LAPTOP,
    cheapest,
    distilled,
    ends,
    feature_loss,
    output_losses,
    separated,
    size,
)
from methods.parts.depth.drop import Residual


def test_two_cheap_units_beat_one_dear_and_ties_go_to_the_earlier():
    assert cheapest([1.0, 2.0, 4.0], [10, 20, 25], 25) == [0, 1]  # 3 < 4
    assert cheapest([1.0, 2.0, 2.5], [10, 20, 25], 25) == [2]  # 2.5 < 3
    assert cheapest([1.0, 1.0, 1.0], [5, 5, 5], 10) == [0, 1]
    assert cheapest([1.0, 1.0], [5, 5], 0) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_knapsack_equals_trying_all_subsets(seed):
    generator = torch.Generator().manual_seed(seed)
    delta, saved = (
        torch.rand(12, generator=generator).tolist(),
        torch.randint(1, 50, (12,), generator=generator).tolist(),
    )
    need = sum(saved) * (seed + 1) // 7
    subsets = [
        subset
        for k in range(13)
        for subset in combinations(range(12), k)
        if sum(saved[i] for i in subset) >= need
    ]
    found = cheapest(delta, saved, need)
    assert sum(saved[i] for i in found) >= need
    assert sum(delta[i] for i in found) == pytest.approx(
        min(sum(delta[i] for i in subset) for subset in subsets)
    )


def linear_net():
    """Three units that read inputs 6 to 8 and each write a direction of its own,
    without mean: their losses add up.
    """
    units = []
    for i in range(3):
        layer = nn.Linear(9, 9, bias=False)
        layer.weight.data.zero_()[2 * i, 6:], layer.weight.data[2 * i + 1, 6:] = (
            torch.arange(3.0) + i,
            -torch.arange(3.0) - i,
        )
        units.append(Residual(layer))
    return nn.Sequential(*units)


@torch.no_grad()
def test_losses_add_up_in_a_linear_net_whose_units_write_orthogonal_directions():
    net, x = linear_net(), torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    delta = output_losses(net, ["0", "1", "2"], x)
    for subset in [(0, 1), (0, 2), (1, 2), (0, 1, 2)]:
        dropped = nn.Sequential(*(unit for i, unit in enumerate(net) if i not in subset))
        joint = float((dropped(x) - net(x)).square().sum(1).mean())
        assert joint == pytest.approx(sum(delta[i] for i in subset), rel=1e-5)
    assert delta[0] == pytest.approx(
        float(2 * (x[:, 6:] @ torch.arange(3.0)).square().mean()), rel=1e-5
    )


def test_a_feature_loss_is_relative_to_the_teacher_and_blind_to_the_scale_of_a_layer():
    F_T, F_S = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]])
    assert feature_loss(F_S, F_T).item() == pytest.approx(16 / 25)
    assert feature_loss(10 * F_S, 10 * F_T).item() == pytest.approx(16 / 25)


@pytest.mark.parametrize(
    ("name", "units", "places"),
    [
        (
            "resnet",
            ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"],
            [f"layer{i}" for i in range(1, 5)],
        ),
        (
            "mobilenet",
            ["blocks.1.1", "blocks.1.2", "blocks.2.1", "blocks.2.2"],
            [f"blocks.{i}" for i in range(3)],
        ),
        (
            "vit",
            [f"blocks.{i}.{half}" for i in range(6) for half in ("attention", "mlp")],
            [f"blocks.{i}" for i in range(6)],
        ),
        (
            "mixer",
            [f"blocks.{i}.{half}" for i in range(6) for half in ("attention", "mlp")],
            [f"blocks.{i}" for i in range(6)],
        ),
    ],
)
def test_units_are_blocks_of_cnns_and_halves_of_the_others(
    make_model, make_data, name, units, places
):
    model, images = make_model(name), make_data(name).calibration
    before = model(images)
    assert ends(model) == places
    assert separated(model) == units
    assert torch.equal(model(images), before)


def gradients(model, teacher, images, labels, w):
    model.zero_grad()
    with distilled(model, teacher, ["blocks.1", "blocks.4"], 4.0, w):
        cross_entropy(model(images), labels).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_a_student_that_equals_its_teacher_feels_cross_entropy_alone_and_another_one_feels_both_losses(
    make_model, make_data
):
    model, images = make_model("vit"), make_data("vit").calibration
    labels, teacher = torch.zeros(len(images), dtype=torch.int64), copy.deepcopy(model)
    cross_entropy(model(images), labels).backward()
    alone = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(
        gradients(model, teacher, images, labels, 1.0), alone, rtol=1e-4, atol=1e-6
    )
    model.blocks[1] = nn.Identity()
    with_features, without = (gradients(model, teacher, images, labels, w) for w in (1.0, 0.0))
    assert not torch.allclose(with_features, without, rtol=1e-2)
    assert not model._forward_hooks and not teacher.blocks[4]._forward_hooks
    assert all(p.grad is None for p in teacher.parameters())


@torch.no_grad()
def test_the_units_chosen_change_the_output_less_than_most_others_that_save_as_much(
    make_model, make_data
):
    model, images = make_model("vit"), make_data("vit").calibration
    # as after training, blocks differ
    for block, strength in zip(model.blocks, [4.0, 1.0, 8.0, 2.0, 6.0, 3.0], strict=True):
        block.attn.proj.weight.mul_(strength), block.mlp.fc2.weight.mul_(strength)
    f, units = model(images), separated(model)
    mlps = [unit for unit in units if unit.endswith("mlp")]
    delta = output_losses(model, mlps, images)

    def loss(subset):
        dropped = copy.deepcopy(model)
        for i in subset:
            dropped.set_submodule(mlps[i], nn.Identity())
        return float((dropped(images) - f).square().sum())

    losses = sorted(loss(subset) for subset in combinations(range(6), 2))
    assert loss(cheapest(delta, [1] * 6, 2)) <= losses[2]  # among the best three of fifteen


@pytest.mark.parametrize(
    ("name", "share"), [("resnet", 0.8), ("mobilenet", 0.75), ("vit", 0.62), ("mixer", 0.4)]
)
def test_the_budget_of_parameters_is_met_by_units_that_are_gone(make_model, make_data, name, share):
    model, data = make_model(name), make_data(name)
    assert LAPTOP(parameters=share).skip(model) is None
    compressed = LAPTOP(parameters=share).compress(copy.deepcopy(model), data)
    assert (
        size(compressed) <= share * size(model)
        and LAPTOP(parameters=size(compressed) / size(model)).skip(model) is None
    )
    assert data.macs(compressed) < data.macs(model)
    assert not any(module._forward_hooks for module in compressed.modules())


def test_a_budget_out_of_reach_is_skipped_and_all_parameters_are_dense_untrained(
    make_model, make_data
):
    model, data, images = make_model("resnet"), make_data("resnet"), torch.randn(3, 1, 16, 16)
    assert "without all 5 blocks that can be dropped" in LAPTOP(parameters=0.1).skip(model)
    assert torch.equal(
        LAPTOP(parameters=1.0).compress(copy.deepcopy(model), data)(images), model(images)
    )
    assert data.images_seen == 0
