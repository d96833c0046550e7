"""The sheet's example, its limiting cases, and the paper's claim on the layer's output."""

from math import floor

import pytest
import torch
from torch import nn

from harness import registry
from methods._layers import feature_rows, prunable
from methods.wanda import input_norms, wanda_mask


def test_the_sheet_s_worked_example_removes_the_larger_weight():
    assert wanda_mask(torch.tensor([[3.0, 1.0]]), torch.tensor([1.0, 4.0]), 0.5).tolist() == [[True, False]]


def test_constant_norms_give_magnitude_within_each_row():
    W = torch.tensor([[1.0, -2.0, 3.0, 4.0], [40.0, 30.0, -10.0, 20.0]])
    assert wanda_mask(W, torch.full((4,), 7.0), 0.5).tolist() == [[True, True, False, False], [False, False, True, True]]


@pytest.mark.parametrize("s", [0.0, 0.3, 0.77])
def test_every_row_of_every_layer_has_exactly_its_floor_of_zeros(make_model, make_data, s):
    model = registry.configure("wanda", {"sparsity": s, "bn_passes": 0}).compress(make_model("mobilenet"), make_data("mobilenet"))
    for layer in prunable(model).values():
        rows = layer.weight.flatten(1)
        assert ((rows == 0).sum(1) == floor(s * rows.shape[1])).all()


def test_norms_of_a_convolution_are_those_of_its_unfolded_input(make_model, track_data):
    model = make_model("resnet")
    conv, seen = model.get_submodule("layer1.0.conv1"), []
    handle = conv.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    norms = input_norms(model, {"layer1.0.conv1": conv}, track_data.calibration)["layer1.0.conv1"]
    handle.remove()
    torch.testing.assert_close(norms, feature_rows(conv, torch.cat(seen)).norm(dim=0), rtol=1e-4, atol=1e-4)


def test_wanda_keeps_the_output_of_a_layer_with_uneven_inputs_better_than_magnitude():
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 32, bias=False), torch.randn(512, 64) * torch.logspace(-1, 1, 64)
    W = layer.weight.detach()

    def error(norm):
        return float((x @ W.masked_fill(wanda_mask(W, norm, 0.5), 0).T - x @ W.T).norm())

    assert error(x.norm(dim=0)) < 0.5 * error(torch.ones(64))
