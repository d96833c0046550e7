"""Worked examples of scores and allocation, the budget, and the paper's claim that
a block that matters more keeps more.
"""

import copy

import pytest
import torch
from torch import nn

from harness.run import registry
from methods import Split
from methods.ecoflap import EPS, kept, row_mask, shaken, split_zeros
from methods.parts.network.layers import by_block, prunable


def counts(model):
    """Return zeros and weights of each block."""
    weights = [
        torch.cat([layer.weight.flatten() for layer in group.values()])
        for group in by_block(model, prunable(model))
    ]
    return [(int((weight == 0).sum()), weight.numel()) for weight in weights]


class Linear(nn.Module):
    """Two logits, (w.x, 0)."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        return torch.stack([x @ self.w, torch.zeros(len(x))], 1)


def test_the_score_of_a_linear_loss_is_the_slope_along_z():
    w, x = torch.tensor([0.3, -0.2, 0.1]), torch.tensor([[500.0, 200.0, -300.0]])
    model = Linear(w * 10)  # a logit of 800 behind: the loss is w.x to many digits
    z = torch.randn(3, generator=torch.Generator().manual_seed(5))
    found = shaken(model, model.w, Split(x, torch.tensor([1])), torch.Generator().manual_seed(5))
    assert found == pytest.approx(abs(float(x[0] @ z)), rel=1e-3)


def test_shaking_leaves_every_weight_bit_for_bit_as_it_was(make_model, track_data):
    model = make_model("resnet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    some = Split(track_data.train.images[:16], track_data.train.labels[:16])
    assert all(
        shaken(model, layer.weight, some, torch.Generator()) > 0
        for layer in prunable(model).values()
    )
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert EPS == 1e-3


def test_allocation_gives_the_worked_example():
    assert kept([3.0, 1.0], [100, 100], 0.5, 0.6) == [55, 45]


@pytest.mark.parametrize(("S", "s_max"), [([1.0, 1.0], 0.6), ([3.0, 1.0], 0.5), ([0.0, 0.0], 0.6)])
def test_equal_scores_or_a_cap_at_the_target_are_uniform(S, s_max):
    assert kept(S, [100, 100], 0.5, s_max) == [50, 50]


def test_a_full_block_passes_on_its_share_and_the_budget_is_met_exactly():
    assert kept([100.0, 1.0, 1.0], [10, 101, 101], 0.5, 0.7) == [10, 48, 48]
    assert kept([0.0, 5.0], [100, 10], 0.5, 0.6) == [45, 10]
    assert sum(kept([1.0, 2.0, 3.0], [7, 11, 13], 1 / 3, 1 / 3 + 0.1)) == 31 - round(31 / 3)


def test_zeros_are_shared_among_layers_and_rows_one_by_one():
    assert split_zeros(7, [10, 10, 20]) == [1, 2, 4]
    metric = torch.tensor([[5.0, 1.0, 4.0], [2.0, 9.0, 3.0]])
    assert row_mask(metric, 3).tolist() == [[False, True, False], [True, False, True]]
    assert row_mask(metric, 6).all() and not row_mask(metric, 0).any()


@pytest.mark.parametrize(("model_name", "s"), [("mobilenet", 0.37), ("vit", 0.6)])
def test_the_zeros_are_exactly_as_many_as_asked_for_and_no_block_has_more_than_the_cap(
    make_model, make_data, model_name, s
):
    model = registry.configure("ecoflap", {"sparsity": s, "bn_passes": 0}).compress(
        make_model(model_name), make_data(model_name)
    )
    zeros, sizes = zip(*counts(model), strict=True)
    assert sum(zeros) == round(s * sum(sizes))
    assert (
        all(z <= (s + 0.1) * n for z, n in zip(zeros, sizes, strict=True))
        and len({round(z / n, 3) for z, n in zip(zeros, sizes, strict=True)}) > 1
    )


def test_a_block_that_hardly_matters_gives_most_and_the_output_suffers_less_than_under_uniform_sparsity(
    make_model, make_data, track_data
):
    model = make_model("vit")
    idle = model.blocks[1]
    for part in (idle.norm1, idle.norm2, idle.attn.proj, idle.mlp.fc2):
        part.weight.data.mul_(0.01)
    images = track_data.validation.images[:64]

    def pruned(method):
        return registry.configure(method, {"sparsity": 0.5}).compress(
            copy.deepcopy(model), make_data("vit")
        )

    chosen = pruned("ecoflap")
    share = [zeros / size for zeros, size in counts(chosen)]
    assert max(share) == share[1] == pytest.approx(0.6, abs=0.001)
    with torch.no_grad():
        assert (chosen(images) - model(images)).norm() < 0.95 * (
            pruned("wanda")(images) - model(images)
        ).norm()
