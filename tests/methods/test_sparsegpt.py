"""A worked example, its limiting cases, exact counts, and the paper's claim on a
layer's output.
"""

from math import floor

import pytest
import torch

from harness.run import registry
from leaderboard.records.errors import UserError
from methods.parts.network.layers import prunable
from methods.parts.pruning.masks import lowest
from methods.parts.pruning.row_masks import wanda_mask
from methods.sparsegpt import sparsegpt


def correlated(seed, samples=600, columns=200):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.eye(columns) + 0.1 * torch.randn(columns, columns, generator=generator)
    uneven = torch.logspace(-0.5, 0.5, columns)[torch.randperm(columns, generator=generator)]
    return (torch.randn(samples, columns, generator=generator) @ mix) * uneven, torch.randn(
        40, columns, generator=generator
    )


def moment(x):
    return 2 / len(x) * (x.T @ x).double()


def test_the_pair_becomes_zero_and_one_and_a_half():
    W, H = torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    Q = sparsegpt(W, H, 0.5, None, percdamp=0)
    torch.testing.assert_close(Q, torch.tensor([[0.0, 1.5]]))
    d = (Q - W).double()
    assert float(0.5 * d @ H @ d.T) == pytest.approx(0.75)


@pytest.mark.parametrize("m", [None, 4])
def test_uncorrelated_inputs_zero_the_lowest_w_squared_times_h_and_change_nothing_else(m):
    W, h = (
        torch.randn(8, 64, generator=torch.Generator().manual_seed(0)),
        torch.linspace(0.1, 2, 64),
    )
    score = W.square() * h
    mask = (
        lowest(score, 256)
        if m is None
        else torch.cat([wanda_mask(part, torch.ones(4), 0.5) for part in score.split(4, 1)], 1)
    )
    assert torch.equal(sparsegpt(W, h.double().diag(), 0.5, m, 0), W.masked_fill(mask, 0))


@pytest.mark.parametrize("m", [None, 8])
def test_no_sparsity_changes_nothing(m):
    x, W = correlated(0)
    assert torch.equal(sparsegpt(W, moment(x), 0.0, m, 0.01), W)


@pytest.mark.parametrize("s", [0.3, 0.5, 0.77])
def test_a_layer_has_exactly_its_share_of_zeros_whatever_the_blocks(s):
    x, W = correlated(1)
    assert int((sparsegpt(W, moment(x), s, None, 0.01) == 0).sum()) == round(s * W.numel())


@pytest.mark.parametrize(("s", "m"), [(0.5, 4), (0.75, 4), (0.5, 16), (1 / 3, 3)])
def test_each_group_of_m_has_its_zeros_and_a_short_last_one_its_floor(s, m):
    x, W = correlated(2, columns=199)
    zeros = sparsegpt(W, moment(x), s, m, 0.01) == 0
    for group in zeros.split(m, 1):
        assert (group.sum(1) == floor(s * group.shape[1] + 1e-9)).all()


def test_sparsegpt_loses_less_than_wanda_and_wanda_less_than_magnitude():
    x, W = correlated(3)

    def error(Q):
        return float((x @ (Q - W).T).norm())

    ours, wanda = (
        error(sparsegpt(W, moment(x), 0.5, None, 0.01)),
        error(W.masked_fill(wanda_mask(W, x.norm(dim=0), 0.5), 0)),
    )
    assert ours < 0.85 * wanda
    assert wanda < 0.9 * error(W.masked_fill(lowest(W.abs(), W.numel() // 2), 0))
    assert ours < error(sparsegpt(W, moment(x), 0.5, 4, 0.01))


@pytest.mark.parametrize("m", [None, 4])
def test_weights_of_inputs_that_are_always_zero_go_first_and_count(m):
    x, W = correlated(4)
    x[:, [0, 150]] = 0
    Q = sparsegpt(W, moment(x), 0.5, m, 0.01)
    assert (Q[:, [0, 150]] == 0).all() and Q.isfinite().all()
    assert int((Q == 0).sum()) == W.numel() // 2
    assert torch.equal(sparsegpt(W, moment(x), 0.0, m, 0.01), W)


@pytest.mark.parametrize("setting", [{"sparsity": 0.75, "m": 8}, {"sparsity": 0.6}])
@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_every_layer_of_a_model_meets_the_budget(make_model, make_data, name, setting):
    model = registry.configure("sparsegpt", setting).compress(make_model(name), make_data(name))
    for layer in prunable(model).values():
        rows, columns = layer.weight.flatten(1).shape
        zeros, s = int((layer.weight == 0).sum()), setting["sparsity"]
        if "m" not in setting:
            assert zeros == round(s * rows * columns)
        assert zeros >= rows * floor(s * columns)


def test_a_share_that_m_weights_cannot_have_is_refused_in_one_line():
    with pytest.raises(UserError, match="no whole number") as refused:
        registry.configure("sparsegpt", {"sparsity": 0.6, "m": 4})
    assert "\n" not in str(refused.value)
    assert registry.configure("sparsegpt", {"sparsity": 0.6, "m": 5}).m == 5
