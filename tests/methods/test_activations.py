import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from harness.point import counter, store
from methods import store_as_codes
from methods.parts.network.layers import weighted
from methods.parts.quantization.activations import Static, minmax_grids, observe, quantise_input
from methods.parts.quantization.quantize import Grid, round_to_nearest, rule


def static(scale, zero, top):
    return Static(Grid(torch.tensor([[scale]]), torch.tensor([[zero]]), top))


def test_a_static_grid_by_hand():
    x = torch.tensor([-1.2, -0.6, 0.0, 0.4, 0.8, 9.0])
    assert static(0.5, 2.0, 3)(x).tolist() == [-1.0, -0.5, 0.0, 0.5, 0.5, 0.5]


def test_a_static_grid_equals_the_fake_quantisation_of_torch():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 3
    expected = torch.fake_quantize_per_tensor_affine(x, 0.0371, 101, 0, 255)
    assert (static(0.0371, 101.0, 255)(x) - expected).abs().max() < 1e-6


def test_a_layer_with_a_quantised_input_keeps_its_kind_name_and_weight_and_survives_a_copy():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    x, (first, last) = torch.randn(5, 3, 3, 3), weighted(model).values()
    quantiser = static(0.25, 4.0, 15)
    expected = nn.functional.linear(
        quantiser(first(quantiser(x)).flatten(1)), last.weight, last.bias
    )
    for layer in (first, last):
        quantise_input(layer, quantiser)
    assert list(weighted(model)) == ["0", "2"] and isinstance(first, nn.Conv2d)
    for found in (model, copy.deepcopy(model)):
        torch.testing.assert_close(found(x), expected)


def test_a_parametrised_layer_comes_back_with_its_input_still_quantised():
    layer, x = nn.Linear(3, 3), torch.randn(4, 3)
    quantise_input(layer, static(0.5, 8.0, 15))
    expected = layer(x)
    parametrize.register_parametrization(layer, "weight", nn.Identity())
    torch.testing.assert_close(layer(x), expected)
    parametrize.remove_parametrizations(layer, "weight")
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_minmax_grids_cover_what_every_layer_gets(make_model, track_data, name):
    model, images, extremes = make_model(name), track_data.calibration[:40], {}
    layers = weighted(model)
    grids = minmax_grids(model, layers, images, 8)
    observe(
        model,
        layers,
        images,
        lambda layer, x: extremes.update({layer: (x.min().item(), x.max().item())}),
    )
    assert extremes.keys() == grids.keys() == layers.keys()
    for layer, (least, greatest) in extremes.items():
        low, high = (float(grids[layer].scale * (code - grids[layer].zero)) for code in (0, 255))
        step = float(grids[layer].scale)
        assert abs(low - min(least, 0)) < 0.7 * step and abs(high - max(greatest, 0)) < 0.7 * step


def test_a_model_with_quantised_inputs_exports_for_any_batch_and_costs_the_same_macs(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 10),
    ).eval()
    layers, images = weighted(model), torch.randn(6, 1, 8, 8)
    cost = counter.count(model, images[:1]).macs
    for key, grid in minmax_grids(model, layers, images, 8).items():
        store_as_codes(
            layers[key],
            round_to_nearest(layers[key].weight.flatten(1), rule(8, layers[key].weight[0].numel())),
        )
        quantise_input(layers[key], Static(grid))
    store.write(tmp_path, store.export(copy.deepcopy(model), images[:2]), store.codes_of(model))
    artefact = store.read(tmp_path)
    torch.testing.assert_close(artefact.module(images), model(images), rtol=1e-4, atol=1e-4)
    assert list(artefact.bits.values()) == [8, 8, 8]
    assert counter.count(artefact.module, images[:1]).macs == cost
