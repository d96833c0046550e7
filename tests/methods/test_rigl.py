"""Worked examples, the budget, what moves when, and the paper's claim on a task
where the connections matter.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from harness.run import registry
from methods import Schedule
from methods.parts.network.layers import prunable
from methods.rigl import RigL, drop_fraction, erk_kept, moved, random_off


def test_erk_gives_the_worked_example():
    assert erk_kept({"a": torch.Size([100, 100]), "b": torch.Size([10, 100])}, 0.8) == {
        "a": 1419,
        "b": 781,
    }


def test_erk_keeps_a_layer_whose_density_would_exceed_one_dense_and_shares_the_rest():
    shapes = {
        "a": torch.Size([100, 100]),
        "b": torch.Size([2, 4, 3, 3]),
        "c": torch.Size([100, 100]),
    }
    assert erk_kept(shapes, 0.9) == {"a": 974, "b": 59, "c": 974}  # of 2007 b gets 13 / 413
    # 13 / 413 of 10036 would be 316
    assert erk_kept(shapes, 0.5) == {"a": 4982, "b": 72, "c": 4982}


@pytest.mark.parametrize("model_name", ["resnet", "mobilenet", "vit", "mixer"])
@pytest.mark.parametrize("s", [0.001, 0.5, 0.9, 0.99])
def test_erk_meets_the_budget_exactly_on_every_model(make_model, model_name, s):
    shapes = {name: layer.weight.shape for name, layer in prunable(make_model(model_name)).items()}
    kept, n = erk_kept(shapes, s), sum(shape.numel() for shape in shapes.values())
    assert sum(kept.values()) == n - round(s * n)
    assert all(0 < kept[name] <= shape.numel() for name, shape in shapes.items())


def test_the_drop_fraction_falls_from_alpha_to_nothing():
    assert [drop_fraction(t, 0.3, 100) for t in (0, 50, 100)] == pytest.approx([0.3, 0.15, 0.0])


def test_the_smallest_weight_goes_and_the_largest_gradient_comes_even_if_it_is_the_one_that_went():
    W, off = torch.tensor([0.0, 0.1, -0.2, 0.0]), torch.tensor([True, False, False, True])
    assert moved(W, torch.tensor([1.0, 0.5, 9.0, -2.0]), off, 1).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert moved(W, torch.tensor([1.0, 5.0, 9.0, -2.0]), off, 1).tolist() == off.tolist()
    assert moved(W, torch.zeros(4), off, 0).tolist() == off.tolist()


def test_steps_that_move_masks_leave_no_gradient_and_the_others_a_masked_one():
    layer = nn.Linear(8, 4)
    off = {"": random_off(layer.weight, 16, torch.Generator().manual_seed(0))}
    # moves at t = 0 only: dT = 6
    before_step = RigL(updates=1).mover(layer, {"": layer.weight}, off, T_end=6)
    layer.weight.data.masked_fill_(off[""], 0.0)
    initial = off[""].clone()
    for t in range(8):
        for p in layer.parameters():
            p.grad = torch.ones_like(p).mul_(torch.arange(p.numel()).view_as(p) + 1)
        before_step(0.1)
        assert off[""].sum() == 16
        assert bool(layer.bias.grad.any()) == bool(layer.weight.grad.any()) == (t > 0)
        assert not layer.weight.grad[off[""]].any() and (
            layer.weight.grad[~off[""]] != 0
        ).all() == (t > 0)
    # 4 = int(0.3 * 16)
    assert (off[""] & ~initial).sum() <= 4 and not torch.equal(off[""], initial)


@pytest.mark.parametrize("model_name", ["resnet", "vit"])
def test_every_layer_ends_with_the_number_of_connections_it_started_with(
    make_model, make_data, model_name
):
    found = prunable(
        registry.configure("rigl", {"sparsity": 0.9}).compress(
            make_model(model_name), make_data(model_name)
        )
    )
    kept = erk_kept({name: layer.weight.shape for name, layer in found.items()}, 0.9)
    assert {name: int(torch.count_nonzero(layer.weight)) for name, layer in found.items()} == kept


class Needles:
    """Images of 64 features of which 4 decide the class; stem and classifier are dense,
    and the stem does not learn.
    """

    scratch = Schedule("adamw", "fp32", 6, 64, 0.01, 0.05, 0.1, 0.0)

    def narrower(self, width):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(64, 64, 1, bias=False),
            nn.Conv2d(64, 16, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16, 2),
        )
        nn.init.dirac_(model[0].weight.requires_grad_(False))
        return model

    def steps(self, schedule):
        return 200

    def generator(self, name):
        return torch.Generator().manual_seed(0)

    def batches(self, schedule):
        draw = torch.Generator().manual_seed(1)
        for _ in range(self.steps(schedule)):
            images = torch.randn(64, 64, 1, 1, generator=draw)
            yield images, (images[:, :4].sum(1).flatten() > 0).long()


def test_moving_connections_finds_the_features_that_a_static_random_mask_misses():
    data = Needles()
    images, labels = next(data.batches(data.scratch))

    def loss(alpha):
        model = RigL(sparsity=0.97, alpha=alpha).compress(SimpleNamespace(), data)
        on = torch.count_nonzero(model[1].weight[:, :4])
        return float(nn.functional.cross_entropy(model(images).detach(), labels)), int(on)

    (static, few), (rigged, many) = loss(0.0), loss(0.3)
    assert rigged < 0.5 * static and many > 3 * few
