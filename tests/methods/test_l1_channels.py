import copy

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from timm.models.resnet import BasicBlock
from torch import nn

from methods.l1_channels import L1Channels, l1_norm
from methods.parts.pruning import channels


def test_the_filter_of_smallest_norm_goes_and_the_others_compute_the_same():
    block = BasicBlock(3, 3).eval()
    sign = torch.randn(3, 3, 3, 3).sign()
    block.conv1.weight.data = sign * torch.tensor([3.0, 1.0, 2.0]).view(3, 1, 1, 1) / 27
    (group,) = channels.groups(block)
    torch.testing.assert_close(l1_norm(group.weights()), torch.tensor([3.0, 1.0, 2.0]))
    first = channels.removal_order([l1_norm(group.weights())])[: round(3 / 3)]
    x = torch.randn(2, 3, 5, 5)
    before = block.conv1(x)
    channels.remove(block, first)
    assert first == [(0, 1)]
    assert torch.equal(block.conv1(x), before[:, [0, 2]])
    assert block.conv2.in_channels == 2 and block.bn1.num_features == 2


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_a_full_budget_is_dense_and_draws_no_images(make_model, make_data, name):
    model, data = make_model(name), make_data(name)
    compressed = L1Channels(macs=1.0).compress(copy.deepcopy(model), data)
    images = torch.randn(4, 1, 16, 16)
    assert torch.equal(compressed(images), model(images))
    assert data.images_seen == 0


def test_a_pruned_model_is_fine_tuned_within_its_budget(make_model, make_data):
    model, data = make_model("mixer"), make_data("mixer")
    compressed = L1Channels(macs=0.4).compress(copy.deepcopy(model), data)
    assert 0.395 < data.macs(compressed) / data.macs(model) <= 0.4
    assert data.images_seen == data.steps(data.fine_tune) * data.fine_tune.batch
    assert not compressed.training


def test_removing_filters_of_small_norm_changes_the_outputs_less_than_removing_large_ones(
    make_model, make_data
):
    model, data = make_model("mobilenet"), make_data("mobilenet")
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_parameters()  # a channel is as strong as its kernel
    for group in channels.groups(model):
        group.producer.weight.data.mul_(
            torch.linspace(0.2, 1.8, group.units)[torch.randperm(group.units)].view(-1, 1, 1, 1)
        )
    scores = [l1_norm(group.weights()) for group in channels.groups(model)]
    images = data.calibration

    def change(sign):
        pruned = copy.deepcopy(model)
        channels.prune_to_macs(
            pruned, channels.removal_order([sign * score for score in scores]), 0.7, data
        )
        return (pruned(images) - model(images)).norm()

    with torch.no_grad():
        assert change(1) < 0.7 * change(-1)


def test_a_model_without_free_channels_is_skipped_with_a_reason(make_model):
    assert L1Channels().skip(make_model("vit")) is None
    assert "no free channels" in L1Channels().skip(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 4))
    )


def test_settings_are_checked():
    settings = TypeAdapter(L1Channels)
    assert settings.validate_python({"macs": 0.5}) == L1Channels(macs=0.5)
    for wrong in ({"macs": 0}, {"macs": 1.5}, {"flops": 0.5}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
