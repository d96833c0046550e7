import torch
from timm.layers import LayerScale
from torch import nn
from torch.nn.utils.fusion import fuse_linear_bn_weights

from methods.parts.depth.merge import affine, merge, normalisation, scaled


def number(value):
    return torch.tensor([float(value)], dtype=torch.float64)


def random_norm(width):
    norm = nn.BatchNorm1d(width, eps=1e-3).double().eval()
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


def test_two_scalar_maps_merge_to_six_x_plus_eight():
    W, b = merge((number(2)[None], number(1)), (number(3)[None], number(5)))
    assert (W.item(), b.item()) == (6.0, 8.0)


def test_a_merged_pair_equals_the_two_in_a_row_with_and_without_bias():
    x = torch.randn(7, 5).double()
    for bias in (True, False):
        first, second = nn.Linear(5, 11, bias=bias).double(), nn.Linear(11, 3).double()
        W, b = merge(affine(first), affine(second))
        torch.testing.assert_close(x @ W.T + b, second(first(x)), rtol=0, atol=1e-10)


def test_a_batch_norm_between_the_two_merges_too():
    first, norm, second, x = (
        nn.Linear(5, 11).double(),
        random_norm(11),
        nn.Linear(11, 3).double(),
        torch.randn(7, 5).double(),
    )
    W, b = merge(scaled(affine(first), *normalisation(norm)), affine(second))
    torch.testing.assert_close(x @ W.T + b, second(norm(first(x))), rtol=0, atol=1e-10)


def test_batch_norm_after_a_layer_is_folded_as_torch_does_it():
    layer, norm = nn.Linear(5, 11).double(), random_norm(11)
    W, b = scaled(affine(layer), *normalisation(norm))
    expected = fuse_linear_bn_weights(
        layer.weight,
        layer.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    torch.testing.assert_close(
        (W, b), tuple(tensor.detach() for tensor in expected), rtol=0, atol=1e-10
    )


def test_a_worked_fold_gives_five_and_minus_two():
    norm = nn.BatchNorm1d(1).double().eval()  # gamma 2, beta 1, mean 3, var + eps = 4
    (
        norm.weight.data.fill_(2),
        norm.bias.data.fill_(1),
        norm.running_mean.fill_(3),
        norm.running_var.fill_(4 - norm.eps),
    )
    W, b = scaled((number(5)[None], number(0)), *normalisation(norm))
    torch.testing.assert_close((W.item(), b.item()), (5.0, -2.0))


def test_a_layer_scale_is_folded_with_gamma_and_zero():
    layer, scale, x = (
        nn.Linear(5, 3).double(),
        LayerScale(3, init_values=0.1).double(),
        torch.randn(7, 5).double(),
    )
    scale.gamma.data.normal_()
    W, b = scaled(affine(layer), scale.gamma.detach(), torch.zeros(3))
    torch.testing.assert_close(x @ W.T + b, scale(layer(x)), rtol=0, atol=1e-10)
