import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from methods._layers import prunable, weighted
from methods._quantize import Grid, Rule, round_to_nearest, rule
from methods.gptq import Gptq, gptq, hessian, inverse_factor


def integers(w, bits):
    return Grid(torch.ones_like(w[:, :1]), torch.zeros_like(w[:, :1]), 2**bits - 1)


def correlated(seed, samples=400, columns=100):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.eye(columns) + 0.3 * torch.randn(columns, columns, generator=generator)
    return torch.randn(samples, columns, generator=generator).relu() @ mix, torch.randn(20, columns, generator=generator)


def loss(difference, H):
    return (difference.double() @ H * difference).sum().item()


def by_explicit_inverses(W, H, grid):
    """Round column after column; each time solve for the best change of the columns left, and shrink H's inverse by the column that is done."""
    W, inverse = W.double().clone(), torch.linalg.inv(H)
    done = torch.empty_like(W)
    for j in range(W.shape[1]):
        done[:, j] = grid.nearest(W[:, j : j + 1])[:, 0]
        error = (W[:, j] - done[:, j]) / inverse[0, 0]
        W[:, j:] -= error[:, None] * inverse[0]
        inverse = inverse[1:, 1:] - inverse[1:, :1] @ inverse[:1, 1:] / inverse[0, 0]
    return done


def test_gptq_rounds_the_sheets_pair_to_one_and_zero():
    W, H = torch.tensor([[0.6, 0.6]]), torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    codes = gptq(W, H, Rule(2, 2, integers), percdamp=0, block=128)
    nearest = round_to_nearest(W, Rule(2, 2, integers))
    assert codes.codes.tolist() == [[1, 0]]
    assert nearest.codes.tolist() == [[1, 1]]
    assert loss(codes.decode(W.shape) - W, H) == pytest.approx(0.088)
    assert loss(nearest.decode(W.shape) - W, H) == pytest.approx(0.608)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gptq_equals_rtn_when_inputs_are_white(bits):
    W, how = correlated(0)[1], rule(bits, 100)
    codes = gptq(W, torch.eye(100, dtype=torch.float64), how, percdamp=0.01, block=16)
    assert torch.equal(codes.decode(W.shape), round_to_nearest(W, how).decode(W.shape))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_loses_less_than_rtn_on_correlated_inputs(bits):
    x, W = correlated(1)
    H, how = (x.T @ x).double(), rule(bits, 100)
    after = gptq(W, H, how, percdamp=0.01, block=128).decode(W.shape)
    assert loss(after - W, H) < 0.6 * loss(round_to_nearest(W, how).decode(W.shape) - W, H)


@pytest.mark.parametrize("block", [1, 7, 100, 128])
def test_gptq_equals_the_recursion_with_explicit_inverses_at_any_block(block):
    x, W = correlated(2)
    H, how = (x.T @ x).double(), rule(3, 100)
    damped = H + 0.01 * H.diagonal().mean() * torch.eye(100)
    expected = by_explicit_inverses(W, damped, how.fit(W.double(), 3))
    torch.testing.assert_close(gptq(W, H, how, 0.01, block).decode(W.shape), expected.float())


def test_inverse_factor_squares_to_the_damped_inverse():
    x, _ = correlated(3, columns=8)
    H = (x.T @ x).double()
    U = inverse_factor(H, 0.5)
    torch.testing.assert_close(U.T @ U @ (H + 0.5 * H.diagonal().mean() * torch.eye(8)), torch.eye(8, dtype=torch.float64))
    assert torch.equal(U, U.triu())


def test_weights_of_inputs_that_are_always_zero_become_zero():
    x, W = correlated(4)
    x[:, [0, 17]] = 0
    after = gptq(W, (x.T @ x).double(), rule(4, 100), 0.01, 128).decode(W.shape)
    assert (after[:, [0, 17]] == 0).all()
    assert after.isfinite().all()


def test_hessian_of_a_strided_convolution_gives_its_output_energy():
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1, dilation=2, bias=False)
    x = torch.randn(200, 2, 9, 9)
    y = conv(x)
    W = conv.weight.flatten(1).double()
    H = hessian(nn.Sequential(conv), "0", conv, x)
    torch.testing.assert_close((W @ H * W).sum(1), 2 * y.transpose(0, 1).flatten(1).double().square().mean(1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_gptq_at_32_bits_leaves_the_model_as_it_is(make_model, make_data, name):
    data = make_data(name)
    model = Gptq(32).compress(make_model(name), data)
    x = data.calibration[:4]
    assert torch.equal(model(x), make_model(name)(x))


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_gptq_stores_codes_of_every_layer_and_draws_the_calibration_images_once(make_model, make_data, name):
    data = make_data(name)
    model = Gptq(3).compress(make_model(name), data)
    inner = prunable(model)
    for key, layer in weighted(model).items():
        assert layer.weight_codes.bits == (3 if key in inner else 8)
        assert torch.equal(layer.weight, layer.weight_codes.decode(layer.weight.shape))
    assert model(torch.randn(2, 1, 16, 16)).isfinite().all()
    assert data.images_seen == 64


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(Gptq)
    assert settings.validate_python({"bits": 3, "percdamp": 0.1}) == Gptq(3, 0.1)
    for wrong in ({"bits": 1}, {"percdamp": 0}, {"block": 0}, {"act_order": True}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
