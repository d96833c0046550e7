import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from methods.parts.network.layers import prunable, weighted
from methods.parts.quantization.codebook import Table, prepare, share, store_table, table_of
from methods.parts.training.train import train


def test_the_gradient_of_a_centroid_is_the_sum_of_those_of_its_members():
    layer, index = nn.Linear(3, 2, bias=False), torch.tensor([0, 1, 1, 2, 1, 0])
    share(layer, index, [torch.tensor([[5.0], [6.0]])], zeros=1)
    assert layer.weight.tolist() == [[0, 5, 5], [6, 5, 0]]
    (layer.weight * torch.tensor([[1.0, 2, 3], [4, 5, 6]])).sum().backward()
    assert layer.parametrizations.weight.original0.grad.tolist() == [[2.0 + 3 + 5], [4.0]]


def test_a_piece_is_a_centroid_times_the_projection():
    layer = nn.Linear(4, 1)
    C, P = torch.tensor([[1.0], [-2.0]]), torch.tensor([[1.0, 3.0]])
    share(layer, torch.tensor([1, 0]), (C, P))
    assert layer.weight.tolist() == [[-2.0, -6.0, 1.0, 3.0]]
    assert [part.tolist() for part in table_of(layer)[1]] == [C.tolist(), P.tolist()]


@pytest.mark.parametrize("d", [2, 3])
def test_what_is_stored_is_the_table_in_float16_a_square_projection_multiplied_out(d):
    generator = torch.Generator().manual_seed(0)
    layer, C, P = (
        nn.Linear(6, 5),
        torch.randn(4, d, generator=generator),
        torch.randn(d, 3, generator=generator),
    )
    share(layer, torch.randint(4, (10,), generator=generator), (C, P))
    before = layer.weight.detach().clone()
    store_table(layer)
    assert not parametrize.is_parametrized(layer)
    codes = layer.weight_codes
    assert codes.centroids.dtype == torch.float16 and torch.equal(
        codes.decode(layer.weight.shape), layer.weight
    )
    assert codes.projection.shape == (2, 3) if d == 2 else codes.projection is None
    torch.testing.assert_close(layer.weight.detach(), before, rtol=1e-2, atol=1e-2)


def test_the_zero_code_is_stored_as_the_first_row():
    layer = nn.Linear(2, 2, bias=False)
    share(layer, torch.tensor([0, 1, 2, 0]), [torch.tensor([[0.5], [2.0]])], zeros=1)
    store_table(layer)
    assert layer.weight_codes.centroids.tolist() == [[0.0], [0.5], [2.0]]
    assert layer.weight.tolist() == [[0.0, 0.5], [2.0, 0.0]]


def test_stem_classifier_and_depthwise_layers_get_eight_bits_that_training_leaves_alone(
    make_model, make_data
):
    model, data = make_model("mobilenet"), make_data("mobilenet")
    layers = prepare(model, data.image_shape)
    assert layers == list(prunable(model).values()) and not any(
        isinstance(module, nn.BatchNorm2d) for module in model.modules()
    )
    others = {name: layer for name, layer in weighted(model).items() if name not in prunable(model)}
    assert len(others) > 2 and all(layer.weight_codes.bits == 8 for layer in others.values())
    train(model, data, data.fine_tune)
    assert all(
        torch.equal(layer.weight, layer.weight_codes.decode(layer.weight.shape))
        for layer in others.values()
    )
    assert not any(hasattr(layer, "weight_codes") for layer in prunable(model).values())


def test_training_moves_centroids_but_no_index(make_model, make_data):
    model, data = make_model("vit"), make_data("vit")
    layer = model.blocks[0].mlp.fc1
    index = torch.arange(layer.weight.numel()) % 3
    share(layer, index.clone(), [torch.tensor([[-0.1], [0.1]])], zeros=1)
    train(model, data, data.fine_tune)
    table, (C,) = table_of(layer)
    assert isinstance(table, Table) and torch.equal(table.index, index)
    assert C.flatten().tolist() != pytest.approx([-0.1, 0.1], abs=1e-4)
    assert (layer.weight.flatten()[index == 0] == 0).all() and layer.weight.unique().numel() == 3
