import copy
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from methods.nm_gradient_flow import GRADIENTS, Flow, NMGradientFlow, divisible, nm_mask
from methods.parts.network.layers import prunable
from methods.parts.training.train import train

WORKED = torch.tensor([[1.0, -2.0, 3.0, 0.5]])


def flow(beta, gradient="chain", sizes=(4,), kept=None):
    """Return the parametrisation of worked weights at `beta`, 2:4."""
    result = Flow(WORKED, sizes, GRADIENTS[gradient])
    result.show((beta, kept or {4: 2}))
    return result


def patterns(method, steps=100):
    """Return the patterns that `method` goes through as (kept, block) or None for
    dense, each once, in order.
    """
    shown = [method.frame(step, steps) for step in range(steps + 1)]
    return list(dict.fromkeys(next(((n, m) for m, n in kept.items()), None) for _, kept in shown))


def test_the_weights_fade_to_their_two_largest():
    torch.testing.assert_close(flow(0.5)(WORKED), torch.tensor([[0.5, -2.0, 3.0, 0.25]]))
    assert flow(0.0)(WORKED).tolist() == [[0.0, -2.0, 3.0, 0.0]]
    assert flow(1.0)(WORKED).tolist() == WORKED.tolist()


@pytest.mark.parametrize(
    ("gradient", "expected"), [("chain", [0.5, 1.0, 1.0, 0.5]), ("ste", [1.0, 1.0, 1.0, 1.0])]
)
def test_the_chain_rule_scales_the_gradient_of_faded_weights_and_straight_through_does_not(
    gradient, expected
):
    W = WORKED.clone().requires_grad_()
    result = flow(0.5, gradient)(W)
    result.sum().backward()
    assert result.tolist() == [[0.5, -2.0, 3.0, 0.25]]
    assert W.grad.tolist() == [expected]


def test_blocks_of_a_convolution_run_along_its_input_channels():
    W = torch.randn(6, 8, 3, 3)
    for y, x in ((0, 0), (1, 2)):
        for block in (slice(0, 4), slice(4, 8)):
            largest = W[:, block, y, x].abs().topk(1, dim=1).indices
            assert torch.equal(
                nm_mask(W, 1, 4)[:, block, y, x],
                torch.zeros(6, 4, dtype=torch.bool).scatter(1, largest, True),
            )


def test_of_equal_weights_the_last_are_kept():
    assert nm_mask(torch.ones(1, 4), 1, 4).tolist() == [[False, False, False, True]]


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("linear", [1, 0.75, 0.5, 0.25, 0]), ("exponential", [1, 100**-0.25, 0.1, 100**-0.75, 0])],
)
def test_beta_falls_to_zero_between_the_dense_and_the_binary_steps(decay, expected):
    method = NMGradientFlow(1, 16, decay, dense_share=0.1, binary_share=0.5)
    assert [method.frame(step, 100)[0] for step in (10, 20, 30, 40, 50)] == pytest.approx(expected)
    assert method.frame(9, 100) == (1.0, {})
    assert method.frame(50, 100) == method.frame(100, 100) == (0.0, {16: 1})


def test_structures_thin_out_in_the_frames():
    assert patterns(NMGradientFlow(1, 16, "stepwise")) == [
        None,
        (15, 16),
        (8, 16),
        (4, 16),
        (2, 16),
        (1, 16),
    ]
    assert patterns(NMGradientFlow(2, 4, "stepwise")) == [None, (3, 4), (2, 4)]
    assert patterns(NMGradientFlow(1, 8, "geometric")) == [None, (8, 64), (4, 32), (2, 16), (1, 8)]


def test_a_block_size_that_does_not_divide_a_layer_or_is_not_shown_leaves_all():
    wide = flow(0.0, sizes=(4, 32), kept={32: 16})
    assert wide.sizes == [4]
    assert wide(WORKED).tolist() == WORKED.tolist()


@pytest.mark.parametrize("decay", ["linear", "exponential", "stepwise", "geometric"])
def test_every_block_ends_with_exactly_n_weights(decay, make_model, make_data):
    data = make_data("mobilenet")
    model = NMGradientFlow(1, 16, decay).compress(make_model("mobilenet"), data)
    assert data.images_seen == data.steps(data.scratch) * data.scratch.batch
    assert 0 < len(divisible(model, 16)) < len(prunable(model))
    for name, layer in prunable(model).items():
        weight = layer.weight.permute(0, 2, 3, 1)
        if name in divisible(model, 16):
            assert (weight.reshape(-1, 16).count_nonzero(1) == 1).all()
        else:
            assert (weight != 0).all()
        assert isinstance(layer.weight, nn.Parameter) and type(layer) is nn.Conv2d


def test_a_beta_of_one_trains_bit_for_bit_as_without(make_model, make_data, monkeypatch):
    monkeypatch.setattr(NMGradientFlow, "frame", lambda self, step, steps: (1.0, {4: 2}))
    expected = make_data("vit").narrower(1.0)
    data = make_data("vit", epochs=0.3)
    data.narrower = lambda width: copy.deepcopy(expected)
    model = NMGradientFlow(2, 4).compress(make_model("vit"), data)
    train(expected, make_data("vit"), data.scratch)
    for name, layer in prunable(expected).items():
        assert torch.equal(
            model.get_submodule(name).weight, layer.weight * nm_mask(layer.weight, 2, 4)
        )
    assert torch.equal(model.head.weight, expected.head.weight)


class Planted:
    """A regression by one layer of 64 inputs whose weights are 1:16; stands in for a
    track.
    """

    def __init__(self, scratch, seed):
        self.scratch, self.generator = (
            replace(scratch, epochs=1, learning_rate=0.02, weight_decay=0.0),
            torch.Generator().manual_seed(seed),
        )
        W = torch.randn(32, 64, generator=self.generator)
        torch.manual_seed(seed)
        self.teacher = W * nm_mask(W, 1, 16)
        self.student = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 64),
            nn.Linear(64, 32, bias=False),
            nn.Identity(),
            nn.Linear(32, 32),
        )
        for place, still in ((1, torch.eye(64)), (4, torch.eye(32))):
            self.student[place].requires_grad_(False)
            self.student[place].weight.copy_(still)
            self.student[place].bias.zero_()

    def narrower(self, width):
        return self.student

    def steps(self, schedule):
        return 300

    def batches(self, schedule):
        for _ in range(300):
            x = torch.randn(64, 64, generator=self.generator)
            yield x.view(64, 1, 8, 8), (x @ self.teacher.T * 4).softmax(1)


def found(data, method):
    """Return the share of the planted weights that `method` keeps."""
    student = method.compress(data.student, data)
    return float(
        ((student[2].weight != 0) & (data.teacher != 0)).sum() / data.teacher.count_nonzero()
    )


@pytest.mark.parametrize(("decay", "seed"), [("exponential", 0), ("exponential", 1), ("linear", 2)])
def test_gradient_flow_finds_a_planted_1_16_mask_that_plain_masked_training_misses(
    decay, seed, make_data
):
    scratch = make_data("vit").scratch
    plain = found(Planted(scratch, seed), NMGradientFlow(1, 16, dense_share=0.0, binary_share=1.0))
    fading = found(Planted(scratch, seed), NMGradientFlow(1, 16, decay, dense_share=0.0))
    assert fading > 0.95 > plain + 0.2


def test_a_model_without_divisible_layers_is_skipped_with_a_reason(make_model):
    assert NMGradientFlow(1, 16).skip(make_model("resnet")) is None
    assert "no layer" in NMGradientFlow(1, 7).skip(make_model("vit"))


def test_settings_are_checked():
    settings = TypeAdapter(NMGradientFlow)
    assert settings.validate_python({"n": 1, "m": 8, "decay": "linear"}) == NMGradientFlow(
        1, 8, "linear"
    )
    for wrong in (
        {"n": 5, "m": 4},
        {"n": 0},
        {"decay": "cosine"},
        {"gradient": "none"},
        {"dense_share": 0.6, "binary_share": 0.6},
        {"sparsity": 0.5},
    ):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
