import copy
from types import SimpleNamespace

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from methods.network_slimming import NetworkSlimming, add_subgradient, importance, scales
from methods.parts.pruning.channels import groups
from methods.parts.pruning.ranking import global_order


def gammas(*values):
    return [nn.Parameter(torch.tensor(value)) for value in values]


def test_the_two_smallest_scales_go_whatever_their_sign():
    assert global_order(importance(gammas([0.9, -0.01, 0.5], [0.02, -0.8])))[: int(0.4 * 5)] == [
        (0, 1),
        (1, 0),
    ]


def test_a_scale_that_the_task_does_not_need_reaches_zero_in_ten_steps_and_stays_near_it():
    (gamma,) = scale = gammas([1e-3, -1e-3])
    optimiser = torch.optim.SGD(scale, lr=0.1)
    path = []
    for _ in range(20):
        gamma.grad = torch.zeros(2)
        add_subgradient(scale, 1e-3)
        optimiser.step()
        path.append(gamma.detach().clone())
    torch.testing.assert_close(path[4], torch.tensor([5e-4, -5e-4]))
    assert all(value.abs().max() <= 1.01e-4 for value in path[9:])


def test_the_subgradient_joins_that_of_the_task_and_a_scale_of_zero_gets_none():
    scale = gammas([2.0, -3.0, 0.0])
    scale[0].grad = torch.tensor([0.5, 0.5, 0.5])
    add_subgradient(scale, 0.1)
    torch.testing.assert_close(scale[0].grad, torch.tensor([0.6, 0.4, 0.5]))


def test_scales_stand_at_the_last_norm_of_every_free_channel(make_model):
    resnet, mobilenet = make_model("resnet"), make_model("mobilenet")
    assert scales(groups(resnet))[0] is resnet.layer1[0].bn1.weight
    assert scales(groups(mobilenet))[0] is mobilenet.blocks[1][0].bn2.weight


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_a_full_budget_is_dense_and_draws_no_images(make_model, make_data, name):
    model, data = make_model(name), make_data(name)
    assert NetworkSlimming(macs=1.0).compress(model, data) is model
    assert data.images_seen == 0


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_both_phases_together_take_the_budget_of_fine_tuning(make_model, make_data, share):
    model, data = make_model("resnet"), make_data("resnet")
    compressed = NetworkSlimming(macs=0.4, share=share).compress(copy.deepcopy(model), data)
    steps = data.steps(data.fine_tune)
    # each phase is rounded down to a step
    assert steps - 1 <= data.images_seen / data.fine_tune.batch <= steps
    assert 0.395 < data.macs(compressed) / data.macs(model) <= 0.4
    assert not compressed.training


def test_the_penalty_separates_channels_that_matter_from_channels_that_do_not():
    torch.manual_seed(0)
    norm, x = nn.BatchNorm2d(8), torch.randn(64, 8, 4, 4)
    optimiser = torch.optim.SGD(norm.parameters(), lr=0.05)
    groups_ = [SimpleNamespace(between=(norm,))]
    # the output is to be the first four channels; of the others only what costs nothing
    # is asked
    for _ in range(200):
        optimiser.zero_grad()
        (norm(x)[:, :4] - x[:, :4]).square().mean().backward()
        add_subgradient(scales(groups_), 0.1)
        optimiser.step()
    (score,) = importance(scales(groups_))
    assert score[:4].min() > 0.7 and score[4:].max() < 0.02


def test_a_model_whose_free_channels_have_no_batch_norm_is_skipped_with_a_reason(make_model):
    assert NetworkSlimming().skip(make_model("resnet")) is None
    assert "no batch norm" in NetworkSlimming().skip(make_model("vit"))
    assert "no batch norm" in NetworkSlimming().skip(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 4))
    )


def test_settings_are_checked():
    for wrong in ({"macs": 0}, {"s": -1}, {"share": 1.5}, {"percent": 0.4}):
        with pytest.raises(ValidationError):
            TypeAdapter(NetworkSlimming).validate_python(wrong)
