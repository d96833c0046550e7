import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from methods.gptq import GPTQ
from methods.parts.network.layers import prunable, weighted
from methods.parts.quantization.gptq import gptq
from methods.parts.quantization.quantize import Grid, Rule, round_to_nearest, rule


def integers(w, bits):
    return Grid(torch.ones_like(w[:, :1]), torch.zeros_like(w[:, :1]), 2**bits - 1)


def correlated(seed, samples=400, columns=100):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.eye(columns) + 0.3 * torch.randn(columns, columns, generator=generator)
    return torch.randn(samples, columns, generator=generator).relu() @ mix, torch.randn(
        20, columns, generator=generator
    )


def loss(difference, H):
    return (difference.double() @ H * difference).sum().item()


def by_explicit_inverses(W, H, grid):
    """Round column after column; each time solve for the best change of the columns
    left, and shrink H's inverse by the column that is done.
    """
    W, inverse = W.double().clone(), torch.linalg.inv(H)
    done = torch.empty_like(W)
    for j in range(W.shape[1]):
        done[:, j] = grid.nearest(W[:, j : j + 1])[:, 0]
        error = (W[:, j] - done[:, j]) / inverse[0, 0]
        W[:, j:] -= error[:, None] * inverse[0]
        inverse = inverse[1:, 1:] - inverse[1:, :1] @ inverse[:1, 1:] / inverse[0, 0]
    return done


def test_gptq_rounds_the_pair_to_one_and_zero():
    W, H = torch.tensor([[0.6, 0.6]]), torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    codes = gptq(W, H, Rule(2, 2, integers), percdamp=0)
    nearest = round_to_nearest(W, Rule(2, 2, integers))
    assert codes.codes.tolist() == [[1, 0]]
    assert nearest.codes.tolist() == [[1, 1]]
    assert loss(codes.decode(W.shape) - W, H) == pytest.approx(0.088)
    assert loss(nearest.decode(W.shape) - W, H) == pytest.approx(0.608)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gptq_equals_rtn_when_inputs_are_white(bits):
    W, how = correlated(0)[1], rule(bits, 100)
    codes = gptq(W, torch.eye(100, dtype=torch.float64), how, percdamp=0.01)
    assert torch.equal(codes.decode(W.shape), round_to_nearest(W, how).decode(W.shape))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_loses_less_than_rtn_on_correlated_inputs(bits):
    x, W = correlated(1)
    H, how = (x.T @ x).double(), rule(bits, 100)
    after = gptq(W, H, how, percdamp=0.01).decode(W.shape)
    assert loss(after - W, H) < 0.6 * loss(round_to_nearest(W, how).decode(W.shape) - W, H)


@pytest.mark.parametrize("columns", [100, 128, 300])
def test_gptq_equals_the_recursion_with_explicit_inverses_however_many_blocks_there_are(columns):
    x, W = correlated(2, samples=3 * columns, columns=columns)
    H, how = (x.T @ x).double(), rule(3, columns)
    damped = H + 0.01 * H.diagonal().mean() * torch.eye(columns)
    expected = by_explicit_inverses(W, damped, how.fit(W.double(), 3))
    torch.testing.assert_close(gptq(W, H, how, 0.01).decode(W.shape), expected.float())


def test_grids_of_groups_are_fitted_to_what_the_groups_before_have_made_of_the_weights():
    x, W = correlated(3)
    H, how, shown = (x.T @ x).double(), Rule(2, 60, rule(2, 100).fit), []
    codes = gptq(W, H, Rule(2, 60, lambda w, bits: shown.append(w) or how.fit(w, bits)), 0.01)
    error = (W - codes.decode(W.shape))[:, :60].double()
    damped = H + 0.01 * H.diagonal().mean() * torch.eye(100)
    # what of the rest makes up best for the first group's error
    best = error @ torch.linalg.solve(damped[60:, 60:], damped[60:, :60]).T
    torch.testing.assert_close(shown[0], W[:, :60])
    torch.testing.assert_close(shown[1], W[:, 60:] + best.float(), rtol=1e-3, atol=1e-3)


def test_weights_of_inputs_that_are_always_zero_become_zero():
    x, W = correlated(4)
    x[:, [0, 17]] = 0
    after = gptq(W, (x.T @ x).double(), rule(4, 100), 0.01).decode(W.shape)
    assert (after[:, [0, 17]] == 0).all()
    assert after.isfinite().all()


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_gptq_at_32_bits_leaves_the_model_as_it_is(make_model, make_data, name):
    data = make_data(name)
    model = GPTQ(32).compress(make_model(name), data)
    x = data.calibration[:4]
    assert torch.equal(model(x), make_model(name)(x))


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_gptq_stores_codes_of_every_layer_and_draws_the_calibration_images_once(
    make_model, make_data, name
):
    data = make_data(name)
    model = GPTQ(3).compress(make_model(name), data)
    inner = prunable(model)
    for key, layer in weighted(model).items():
        assert layer.weight_codes.bits == (3 if key in inner else 8)
        assert torch.equal(layer.weight, layer.weight_codes.decode(layer.weight.shape))
    assert model(torch.randn(2, 1, 16, 16)).isfinite().all()
    assert data.images_seen == 64


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(GPTQ)
    assert settings.validate_python({"bits": 3, "percdamp": 0.1}) == GPTQ(3, 0.1)
    for wrong in ({"bits": 1}, {"percdamp": 0}, {"block": 0}, {"act_order": True}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
