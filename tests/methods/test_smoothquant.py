import copy

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from methods import Codes
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import prunable, weighted
from methods.parts.quantization.quantize import asymmetric, minmax, round_to_nearest, rule
from methods.smoothquant import PerToken, SmoothQuant, channel_maxima, factors, pairs, smooth


@pytest.fixture
def make_live(make_model):
    """The model `name` with a classifier that is not zero, as the Mixer's is before
    training.
    """

    def make(name):
        model = make_model(name)
        nn.init.normal_(model.get_classifier().weight, std=0.1)
        return model

    return make


def with_outliers(seed, samples=400, channels=32):
    """Inputs of which two channels are forty times as large, as they come out of a
    LayerNorm, and the norm that makes them.
    """
    generator = torch.Generator().manual_seed(seed)
    norm, layer = nn.LayerNorm(channels), nn.Linear(channels, 24)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.weight[[3, 17]] *= 40
        layer.weight.normal_(std=0.2, generator=generator)
    return norm, layer, torch.randn(samples, channels, generator=generator)


def rounded(norm, layer, x):
    """W8A8 of what `layer` makes of `norm`'s output."""
    h = norm(x)
    grid = minmax(asymmetric, h.reshape(1, -1), 8)
    weight = round_to_nearest(layer.weight, rule(8, layer.weight.shape[1])).decode(
        layer.weight.shape
    )
    return nn.functional.linear(grid.nearest(h.reshape(1, -1)).view_as(h), weight, layer.bias)


def test_the_channel_of_16_against_a_weight_of_1_meets_it_at_4():
    norm, layer = nn.LayerNorm(2), nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.25, 0.0]]))
    a = torch.tensor([16.0, 1.0])
    assert factors(a, torch.ones(2), 0.5).tolist() == [4, 1]
    smooth(norm, layer, a, 0.5)
    assert norm.weight.tolist() == [0.25, 1]
    assert layer.weight.abs().amax(0).tolist() == [4, 1]


def test_alpha_0_makes_all_weight_columns_1_and_alpha_1_all_activations():
    a, w = torch.tensor([8.0, 0.5, 3.0]), torch.tensor([0.1, 2.0, 0.7])
    torch.testing.assert_close(w * factors(a, w, 0.0), torch.ones(3))
    torch.testing.assert_close(a / factors(a, w, 1.0), torch.ones(3))


def test_a_channel_that_is_always_zero_is_left_alone():
    assert factors(torch.tensor([0.0, 4.0]), torch.tensor([2.0, 1.0]), 0.5).tolist() == [1, 2]
    assert factors(torch.tensor([4.0]), torch.tensor([0.0]), 0.5).isfinite().all()


@pytest.mark.parametrize("name", ["resnet", "vit", "mixer"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_smoothing_alone_changes_no_output(make_live, track_data, name, alpha):
    model, images = make_live(name), track_data.calibration[:48]
    fold_batchnorms(model, images[:1])
    layers, writers, before = weighted(model), pairs(model), model(images)
    maxima = channel_maxima(model, {key: layers[key] for key in writers}, images)
    weights = {key: layers[key].weight.clone() for key in writers}
    for key, a in maxima.items():
        smooth(writers[key], layers[key], a, alpha)
    torch.testing.assert_close(model(images), before, rtol=1e-5, atol=1e-5)
    assert not any(torch.allclose(layers[key].weight, weight) for key, weight in weights.items())
    after = channel_maxima(model, {key: layers[key] for key in writers}, images)
    for key, a in maxima.items():
        s = factors(a, weights[key].transpose(0, 1).flatten(1).abs().amax(1), alpha)
        torch.testing.assert_close(after[key], a / s, rtol=1e-4, atol=1e-5)


def test_pairs_are_those_of_the_docstring(make_model):
    assert [key.split(".", 2)[2] for key in pairs(make_model("vit"))] == ["attn.qkv", "mlp.fc1"] * 6
    assert {key.split(".", 2)[2] for key in pairs(make_model("mixer"))} == {"mlp_channels.fc1"}
    assert {key.split(".", 2)[2] for key in pairs(make_model("resnet"))} == {"conv2"}
    assert pairs(make_model("mobilenet")) == {}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_smoothing_makes_the_error_of_a_layer_with_outlier_channels_less_than_half(seed):
    norm, layer, x = with_outliers(seed)
    with torch.no_grad():
        exact = layer(norm(x))
        plain = (rounded(norm, layer, x) - exact).square().mean()
        smooth(norm, layer, norm(x).abs().amax(0), 0.5)
        assert (rounded(norm, layer, x) - exact).square().mean() < 0.5 * plain


def test_per_token_grids_give_each_row_its_own_step():
    x = torch.tensor([[127.0, 1.4, -0.6], [1.27, 0.014, -0.006], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[127.0, 1.0, -1.0], [1.27, 0.01, -0.01], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(PerToken((-1,), 127)(x), expected)


def test_a_model_without_pairs_is_skipped_unless_smoothing_is_off(make_model):
    assert "smooth" in SmoothQuant().skip(make_model("mobilenet"))
    assert SmoothQuant(alpha=None).skip(make_model("mobilenet")) is None
    assert all(SmoothQuant().skip(make_model(name)) is None for name in ("resnet", "vit", "mixer"))


@pytest.mark.parametrize("activations", ["static", "dynamic"])
@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_8_bits_change_the_output_little_and_every_layer_rounds_its_input(
    make_live, make_data, name, activations
):
    data, dense = make_data(name), make_live(name)
    model = SmoothQuant(
        activations=activations, alpha=None if name == "mobilenet" else 0.5
    ).compress(copy.deepcopy(dense), data)
    x = data.calibration[:32]
    exact = dense(x)
    assert 0 < (model(x) - exact).square().mean() < 2e-3 * exact.square().mean()
    for layer in weighted(model).values():
        assert isinstance(layer.weight_codes, Codes) and hasattr(layer, "input_quantiser")
    assert data.images_seen == 128


def test_w4a8_codes_the_inner_layers_in_4_bits_and_the_others_in_8(make_model, make_data):
    model = SmoothQuant(bits=4).compress(make_model("vit"), make_data("vit"))
    inner = prunable(model)
    assert all(
        layer.weight_codes.bits == (4 if key in inner else 8)
        for key, layer in weighted(model).items()
    )


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(SmoothQuant)
    assert settings.validate_python({"alpha": None}) == SmoothQuant(alpha=None)
    for wrong in ({"bits": 3}, {"alpha": 1.5}, {"activation_bits": 9}, {"activations": "none"}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
