"""A worked example, its limiting cases, and the paper's claim on the layer's
output.
"""

from math import floor

import pytest
import torch
from torch import nn

from harness.run import registry
from methods.parts.network.layers import prunable
from methods.parts.pruning.masks import lowest
from methods.parts.pruning.row_masks import wanda_mask


def test_the_worked_example_removes_the_larger_weight():
    assert wanda_mask(torch.tensor([[3.0, 1.0]]), torch.tensor([1.0, 4.0]), 0.5).tolist() == [
        [True, False]
    ]


def test_constant_norms_give_magnitude_within_each_row():
    W = torch.tensor([[1.0, -2.0, 3.0, 4.0], [40.0, 30.0, -10.0, 20.0]])
    assert wanda_mask(W, torch.full((4,), 7.0), 0.5).tolist() == [
        [True, True, False, False],
        [False, False, True, True],
    ]


@pytest.mark.parametrize("s", [0.0, 0.3, 0.77])
def test_every_row_of_every_layer_has_exactly_its_floor_of_zeros(make_model, make_data, s):
    model = registry.configure("wanda", {"sparsity": s, "bn_passes": 0}).compress(
        make_model("mobilenet"), make_data("mobilenet")
    )
    for layer in prunable(model).values():
        rows = layer.weight.flatten(1)
        assert ((rows == 0).sum(1) == floor(s * rows.shape[1])).all()


@pytest.mark.parametrize("s", [0.0, 0.1, 0.5, 0.99])
def test_the_mask_is_that_of_each_row_on_its_own_ties_to_the_lower_index(s):
    W = torch.randint(-3, 4, (50, 33), generator=torch.Generator().manual_seed(0)).float()
    expected = torch.stack([lowest(row.abs(), floor(s * 33)) for row in W])
    assert torch.equal(wanda_mask(W, torch.ones(33), s), expected)


def test_wanda_keeps_the_output_of_a_layer_with_uneven_inputs_better_than_magnitude():
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 32, bias=False), torch.randn(512, 64) * torch.logspace(-1, 1, 64)
    W = layer.weight.detach()

    def error(norm):
        return float((x @ W.masked_fill(wanda_mask(W, norm, 0.5), 0).T - x @ W.T).norm())

    assert error(x.norm(dim=0)) < 0.5 * error(torch.ones(64))
