from math import inf

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

import methods.adaround
from methods.adaround import (
    AdaRound,
    Learning,
    activations,
    adaround,
    all_rows,
    rows_in_turn,
    spread,
    start,
)
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import prunable, visit_inputs, weighted
from methods.parts.quantization.quantize import Grid, Rule, round_to_nearest, rule

PLAIN = (-inf, inf)
QUICK = Learning(200, 0.05, 0.01)


def integers(w, bits):
    return Grid(torch.ones_like(w[:, :1]), torch.zeros_like(w[:, :1]), 2**bits - 1)


def problem(seed=0, columns=80, rows=20, samples=400):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.eye(columns) + 0.3 * torch.randn(columns, columns, generator=generator)
    X = torch.randn(samples, columns, generator=generator).relu() @ mix
    W, b = (
        0.1 * torch.randn(rows, columns, generator=generator),
        torch.randn(rows, generator=generator),
    )
    return W, b, X, X @ W.T + b


def h(V):
    return (1.2 * V.sigmoid() - 0.1).clamp(0, 1)


@pytest.mark.parametrize(("w", "code"), [(0.4, 0), (0.6, 1)])
def test_a_single_weight_goes_to_the_nearer_point(w, code):
    W, X = torch.tensor([[w]]), torch.ones(8, 1)
    assert adaround(
        W, torch.zeros(1), X, X @ W.T, PLAIN, Rule(2, 1, integers), QUICK
    ).codes.tolist() == [[code]]


def test_of_two_weights_with_the_same_input_one_goes_up_and_one_down():
    # nearest: 1 + 1 for 1.2, an error of 0.8; one of them: 0.2
    W, X = torch.tensor([[0.61, 0.59]]), torch.ones(8, 2)
    assert round_to_nearest(W, Rule(2, 2, integers)).codes.tolist() == [[1, 1]]
    assert adaround(
        W, torch.zeros(1), X, X @ W.T, PLAIN, Rule(2, 2, integers), Learning(1000, 0.02, 0.01)
    ).codes.tolist() == [[1, 0]]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_without_inputs_to_learn_from_the_soft_weights_start_as_the_weights_and_round_to_nearest(
    bits,
):
    W, b, X, _ = problem()
    torch.testing.assert_close(
        h(start(torch.linspace(0, 0.999, 50))), torch.linspace(0, 0.999, 50), atol=1e-6, rtol=0
    )
    nearest = round_to_nearest(W, rule(bits, 80))
    assert torch.equal(
        adaround(W, b, 0 * X, b.expand(len(X), -1), PLAIN, rule(bits, 80), QUICK).codes,
        nearest.codes,
    )


@pytest.mark.parametrize("f", [PLAIN, (0, inf)])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_adaround_loses_less_of_the_output_than_rtn_on_the_same_grids(bits, f):
    W, b, X, T = problem(bits)
    nearest, learned = (
        round_to_nearest(W, rule(bits, 80)),
        adaround(W, b, X, T, f, rule(bits, 80), QUICK),
    )
    assert torch.equal(nearest.scale, learned.scale) and torch.equal(nearest.zero, learned.zero)
    lost = [
        (T.clamp(*f) - (X @ codes.decode(W.shape).T + b).clamp(*f)).square().mean()
        for codes in (nearest, learned)
    ]
    assert lost[1] < 0.5 * lost[0]
    down = (
        W / learned.scale.float().repeat_interleave(learned.group, 1)[:, :80]
    ).floor() + learned.zero.repeat_interleave(learned.group, 1)[:, :80]
    step = learned.codes - down
    inside = (down >= 0) & (down < 2**bits - 1)
    assert ((step == 0) | (step == 1))[inside].all()  # up or down, and no further


@pytest.mark.parametrize("f", [PLAIN, (0, inf), (0, 6)])
def test_gradients_are_those_of_autograd(f):
    W, b, X, T = problem(1)
    W = (W + 0.1).requires_grad_()
    loss = (T.clamp(*f) - (X @ W.T + b).clamp(*f)).square().sum(1).mean()
    (expected,) = torch.autograd.grad(loss, W)
    torch.testing.assert_close(
        rows_in_turn(X, T, b, f)(W.detach(), 1), expected, atol=1e-3, rtol=1e-4
    )
    if f == PLAIN:
        torch.testing.assert_close(
            all_rows(X, T - b)(W.detach(), 1), expected, atol=1e-3, rtol=1e-4
        )


def test_rows_are_taken_in_turn_all_of_them_once_a_round():
    W, b, X, T = problem(2, samples=4096)
    gradient = rows_in_turn(X, T, b, PLAIN)
    together = torch.stack([gradient(W + 0.1, step) for step in range(1, 5)])
    torch.testing.assert_close(
        together.mean(0), all_rows(X, T - b)(W + 0.1, 1), atol=1e-3, rtol=1e-4
    )
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("total", [1, 2, 7, 64, 8192, 17 * 128])
def test_any_run_of_the_rows_taken_is_spread_evenly(total):
    assert spread(total, total).sort().values.tolist() == list(range(total))
    if total > 1000:
        gaps = spread(100, total).sort().values.diff()
        assert gaps.max() <= 2.7 * total / 100


def test_the_regulariser_starts_after_a_fifth_and_its_exponent_falls_from_20_to_2():
    how = Learning(100, 0.01, 0.01)
    assert (how.beta(19), how.beta(20), how.beta(60), how.beta(100)) == (None, 20, 11, 2)


def test_activations_right_behind_a_layer_are_found_and_those_behind_an_addition_are_not(
    make_model,
):
    found = {}
    for name in ("resnet", "mobilenet", "vit"):
        model = fold_batchnorms(make_model(name), torch.zeros(1, 1, 16, 16))
        found[name] = activations(model, prunable(model), torch.zeros(1, 1, 16, 16))
    resnet = {key.split(".", 1)[1][2:]: value for key, value in found["resnet"].items()}
    assert resnet == {"conv1": (0, inf), "conv2": PLAIN, "downsample.0": PLAIN}
    mobilenet = {
        key.split(".")[-1]: value
        for key, value in found["mobilenet"].items()
        if not key.startswith("blocks.0")
    }
    assert mobilenet == {"conv_pw": (0, 6), "conv_pwl": PLAIN, "conv_head": (0, 6)}
    # the projection of a separable convolution
    assert found["mobilenet"]["blocks.0.0.conv_pw"] == PLAIN
    assert set(found["vit"].values()) == {PLAIN}


def test_inputs_come_from_the_rounded_model_and_targets_from_dense(
    make_model, make_data, monkeypatch
):
    seen = []

    def spy(W, b, X, T, f, rule, how):
        seen.append((X, T))
        return round_to_nearest(W, rule)

    monkeypatch.setattr(methods.adaround, "adaround", spy)
    data = make_data("vit")
    model, dense = AdaRound(2).compress(make_model("vit"), data), make_model("vit")
    name, x = "blocks.3.mlp.fc2", data.calibration
    order, rows = [], []
    visit_inputs(model, prunable(model), x[:1], lambda key, _rows: order.append(key))
    for each in (model, dense):
        visit_inputs(
            each, {name: each.get_submodule(name)}, x, lambda _key, found: rows.append(found)
        )
    X, T = seen[order.index(name)]
    order = spread(len(X), len(X))
    assert torch.equal(X, rows[0][order])
    torch.testing.assert_close(T, dense.get_submodule(name)(rows[1][order]))
    assert not torch.allclose(rows[0], rows[1], atol=0.01)


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_every_layer_is_stored_as_codes_and_the_calibration_images_are_drawn_once(
    make_model, make_data, name
):
    data = make_data(name)
    model = AdaRound(3, steps=5).compress(make_model(name), data)
    inner = prunable(model)
    for key, layer in weighted(model).items():
        assert layer.weight_codes.bits == (3 if key in inner else 8)
        assert torch.equal(layer.weight, layer.weight_codes.decode(layer.weight.shape))
    assert data.images_seen == 64


def test_a_convolution_learns_from_its_windows():
    conv = nn.Conv2d(6, 8, 3, stride=2, padding=1)
    x = torch.randn(30, 6, 9, 9, generator=torch.Generator().manual_seed(0)).cumsum(3) / 3
    W, y, rows = conv.weight.detach().flatten(1), conv(x).detach(), []
    visit_inputs(nn.Sequential(conv), {"0": conv}, x, lambda _name, found: rows.append(found))
    T = rows[0] @ W.T + conv.bias.detach()
    lost = []
    for codes in (
        round_to_nearest(W, rule(3, 54)),
        adaround(W, conv.bias.detach(), rows[0], T, PLAIN, rule(3, 54), QUICK),
    ):
        conv.weight.data = codes.decode(conv.weight.shape)
        lost.append((conv(x) - y).square().mean())
    assert lost[1] < 0.6 * lost[0]


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(AdaRound)
    assert settings.validate_python({"bits": 3, "steps": 100}) == AdaRound(3, 100)
    for wrong in ({"bits": 1}, {"steps": 0}, {"rate": 0}, {"strength": -1}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
