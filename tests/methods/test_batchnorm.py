"""Folding is exact and complete; re-estimation is the plain average over the images
given.
"""

import copy

import pytest
import timm
import torch
from torch import nn

from methods.parts.network.batchnorm import fold_batchnorms, has_batchnorm, recalibrate


def test_the_worked_example():
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)).eval()
    conv, norm = model
    conv.weight.data.fill_(5)
    (
        norm.weight.data.fill_(2),
        norm.bias.data.fill_(1),
        norm.running_mean.fill_(3),
        norm.running_var.fill_(4),
    )
    folded = fold_batchnorms(model, torch.ones(1, 1, 2, 2))
    assert (folded[0].weight.item(), folded[0].bias.item()) == (5.0, -2.0)


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_every_norm_of_a_model_is_folded_and_the_output_stays(make_model, track_data, name):
    model, images = make_model(name).double(), track_data.validation.images[:8].double()
    folded = fold_batchnorms(copy.deepcopy(model), images[:1])
    assert has_batchnorm(model) and not has_batchnorm(folded)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), model(images), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "mobilenetv3_small_100", "resnet26d", "densenet121"]
)
def test_folding_never_changes_what_a_timm_model_computes(name):
    torch.manual_seed(0)
    model = timm.create_model(name).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            fold_batchnorms(copy.deepcopy(model), images)(images),
            model(images),
            rtol=1e-8,
            atol=1e-8,
        )


def test_a_convolution_with_a_second_reader_keeps_its_norm():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.other = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU()

        def forward(self, x):
            y = self.conv(x)
            return self.bn(y) + self.other(y)

    assert has_batchnorm(fold_batchnorms(Shared().eval(), torch.ones(1, 1, 2, 2)))


def test_pruned_weights_stay_positive_zero_so_that_they_are_stored_as_nothing():
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2)).eval()
    model[0].weight.data.zero_()
    model[1].weight.data.fill_(-1)
    weight = fold_batchnorms(model, torch.ones(1, 1, 2, 2))[0].weight
    assert not torch.signbit(weight).any()


def test_recalibration_is_the_average_over_batches_and_leaves_momentum_as_it_was():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, momentum=0.3).eval()
    images = torch.randn(128, 3, 4, 4) * 2 + 1
    recalibrate(norm, images)
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    halves = torch.stack([half.var((0, 2, 3)) for half in images.split(64)]).mean(0)
    torch.testing.assert_close(norm.running_var, halves, rtol=1e-3, atol=1e-3)
    assert norm.momentum == 0.3 and not norm.training
