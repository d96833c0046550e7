"""Moments and norms of a layer's inputs against what they say about its outputs, by
hand, and with rows that count more or less.
"""

import pytest
import torch
from torch import nn

from methods.parts.network.gram import moments, norms
from methods.parts.network.layers import feature_rows


def test_moments_of_a_strided_convolution_give_its_output_energy():
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1, dilation=2, bias=False)
    x = torch.randn(200, 2, 9, 9)
    y = conv(x)
    W = conv.weight.flatten(1).double()
    H = moments(nn.Sequential(conv), {"0": conv}, x)["0"]
    assert H.dtype == torch.float64
    torch.testing.assert_close(
        (W @ H * W).sum(1),
        2 * y.transpose(0, 1).flatten(1).double().square().mean(1),
        rtol=1e-5,
        atol=0,
    )


def test_the_two_tokens_give_their_importance_as_diagonal():
    layer, r = nn.Linear(2, 1), torch.tensor([0.00995, 1.99005])
    H = moments(layer, {"": layer}, torch.eye(2)[None], {"": r})[""]
    torch.testing.assert_close(H, r.double().diag())


def test_rows_of_no_importance_do_not_count_in_whichever_batch_they_are():
    layer, x = nn.Linear(5, 1), torch.randn(300, 4, 5)
    r = (torch.rand(1200) < 0.5).float()
    kept = x.flatten(0, 1)[r == 1].double()
    torch.testing.assert_close(
        moments(layer, {"": layer}, x, {"": r})[""], 2 / 1200 * kept.T @ kept, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        moments(layer, {"": layer}, x, {"other": r})[""], moments(layer, {"": layer}, x)[""]
    )


@pytest.mark.parametrize(
    "conv",
    [nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 3, dilation=2)],
)
def test_norms_of_a_convolution_are_those_of_its_unfolded_input(conv):
    x = torch.randn(150, 2, 9, 9)
    torch.testing.assert_close(
        norms(nn.Sequential(conv), {"0": conv}, x)["0"], feature_rows(conv, x).norm(dim=0)
    )


def test_norms_are_those_of_each_layer_of_a_block(make_model, track_data):
    block, x = make_model("vit").blocks[0], torch.randn(140, 17, 48)
    layers = {name: block.get_submodule(name) for name in ("attn.qkv", "mlp.fc2", "mlp.fc1")}
    found = norms(block, layers, x)
    torch.testing.assert_close(
        found["attn.qkv"], block.norm1(x).flatten(0, 1).norm(dim=0), rtol=1e-4, atol=1e-4
    )
    for name, layer in layers.items():
        H = moments(block, {name: layer}, x)[name]
        torch.testing.assert_close(
            found[name].double(), (H.diagonal() * 140 * 17 / 2).sqrt(), rtol=1e-4, atol=1e-4
        )
