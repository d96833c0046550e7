import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from methods.lord import LoRD
from methods.parts.low_rank.factors import rank
from methods.parts.low_rank.features import divergences, feature_pca, mimicking
from methods.parts.network.layers import prunable, weighted


def held(module):
    return sum(p.numel() for name, p in module.named_parameters() if not name.endswith("bias"))


def test_all_statistics_are_those_of_the_original_model(make_model, make_data):
    data = make_data("vit")
    dense, model = make_model("vit"), LoRD(0.5).compress(make_model("vit"), data)
    layers = prunable(dense)
    features = feature_pca(dense, layers, data.calibration)
    for name in ("blocks.0.attn.qkv", "blocks.5.mlp.fc2"):
        expected = mimicking(layers[name], features[name], rank(*layers[name].weight.shape, 0.5))
        for own, other in zip(
            model.get_submodule(name).parameters(), expected.parameters(), strict=True
        ):
            assert torch.equal(own, other)


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_every_layer_keeps_its_share_and_the_images_are_drawn_once(make_model, make_data, name):
    data, dense = make_data(name), make_model(name)
    model = LoRD(0.5).compress(make_model(name), data)
    for key, layer in weighted(dense).items():
        after = model.get_submodule(key)
        assert isinstance(after, nn.Sequential) == (key in prunable(dense))
        assert held(after) <= layer.weight.numel() * (0.5 if key in prunable(dense) else 1)
    assert data.images_seen == 64


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_lord_that_keeps_all_leaves_the_model_as_it_is(make_model, make_data, name):
    data = make_data(name)
    model, x = LoRD(1.0).compress(make_model(name), data), data.calibration[:4]
    assert torch.equal(model(x), make_model(name)(x))


def test_a_tolerance_keeps_the_layers_that_move_the_predictions_more(make_model, make_data):
    data, dense = make_data("vit"), make_model("vit")
    layers, features = prunable(dense), feature_pca(dense, prunable(dense), data.calibration)
    pairs = {
        name: mimicking(layer, features[name], rank(*layer.weight.shape, 0.25))
        for name, layer in layers.items()
    }
    moved = divergences(dense, pairs, data.calibration)
    tolerance = sorted(moved.values())[7]
    model = LoRD(0.25, tolerance).compress(make_model("vit"), data)
    replaced = {name for name in layers if isinstance(model.get_submodule(name), nn.Sequential)}
    assert replaced == {name for name in layers if moved[name] <= tolerance}
    assert len(replaced) == 8


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(LoRD)
    assert settings.validate_python({"rho": 0.3, "tolerance": 0.1}) == LoRD(0.3, 0.1)
    for wrong in ({"rho": 0}, {"rho": 1.5}, {"tolerance": 0}, {"rank": 3}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
