"""SLAB: RepBN and its folding, the fall of lambda, linear attention, and whole
models.
"""

import copy

import pytest
import torch
from timm.layers import Attention
from timm.models.mlp_mixer import Affine
from torch import nn

from harness.point import counter
from methods.slab import (
    SLAB,
    LinearAttention,
    PRepBN,
    fold,
    last,
    linear_attention,
    progress,
    readers,
)


def repbn(gamma, var, mu, beta, eta):
    """RepBN of one channel with these numbers, in eval mode."""
    norm = PRepBN(nn.LayerNorm(1)).eval()
    for tensor, value in zip(
        (norm.bn.weight.data, norm.bn.running_var, norm.bn.running_mean, norm.bn.bias.data),
        (gamma, var, mu, beta),
        strict=True,
    ):
        tensor.fill_(value)
    norm.eta.data.fill_(eta)
    return norm


def test_repbn_is_an_affine_map_and_folds_into_the_linear_behind_it():
    norm = repbn(gamma=2, var=4 - 1e-5, mu=3, beta=1, eta=0.5)
    x = torch.tensor([[[1.0], [4.0]]])
    torch.testing.assert_close(norm(x), 1.5 * x - 2)
    model = nn.Sequential(norm, nn.Linear(1, 1))
    model[1].weight.data.fill_(4), model[1].bias.data.zero_()
    fold(model, "0", "1")
    torch.testing.assert_close(model(x), 6 * x - 8)
    assert isinstance(model[0], nn.Identity)


def test_lambda_falls_linearly_to_zero_and_stays_there():
    norm = PRepBN(nn.LayerNorm(4))
    step, seen = progress([norm], 10), []
    for _ in range(12):
        seen.append(norm.lam.item())
        step(0.1)
    assert seen == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0])


def test_training_starts_as_layer_norm_and_ends_as_batch_norm_over_images_and_tokens_plus_eta_x():
    norm, x = (
        PRepBN(nn.LayerNorm(6)).train(),
        torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(0)),
    )
    nn.init.normal_(norm.norm.weight), nn.init.normal_(norm.bn.weight), norm.eta.data.fill_(0.3)
    torch.testing.assert_close(norm(x), norm.norm(x))
    norm.lam.fill_(0.0)
    centred = x - x.mean((0, 1))
    expected = (
        norm.bn.weight * centred / (x.var((0, 1), unbiased=False) + 1e-5).sqrt()
        + norm.bn.bias
        + 0.3 * x
    )
    torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-5)
    norm.lam.fill_(0.25)
    torch.testing.assert_close(norm(x), 0.25 * norm.norm(x) + 0.75 * expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("N", "d"), [(9, 4), (4, 9)])
def test_both_orders_of_the_products_are_the_weighted_mean_of_the_values(N, d):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.rand(2, 3, N, d, generator=generator) for _ in range(3))
    weight = torch.einsum("bhic,bhjc->bhij", q, k)
    torch.testing.assert_close(
        linear_attention(q, k, v), weight / weight.sum(-1, keepdim=True) @ v, rtol=1e-5, atol=1e-5
    )


def test_one_token_sees_itself_and_its_convolution():
    attention = LinearAttention(Attention(4, num_heads=2, qkv_bias=True), 0, (1, 1)).eval()
    # q and k positive somewhere
    nn.init.constant_(attention.qkv.bias, 1.0), nn.init.normal_(attention.dwc.weight)
    nn.init.eye_(attention.proj.weight), nn.init.zeros_(attention.proj.bias)
    x = torch.rand(3, 1, 4) / 10
    v = attention.qkv(x).chunk(3, -1)[2]
    centre = attention.dwc.weight[:, 0, 2, 2].repeat(2)
    torch.testing.assert_close(attention(x), v + centre * v, rtol=1e-4, atol=1e-5)


def test_the_convolution_sees_the_grid_of_patches_and_not_the_class_token():
    attention = LinearAttention(Attention(6, num_heads=2), 1, (3, 2))
    attention.dwc.weight.data[:, 0, 2, 3] = 1.0  # the neighbour on the right
    v = torch.arange(2 * 2 * 7 * 3.0).view(2, 2, 7, 3)
    out, grid = attention.local(v), v[:, :, 1:].unflatten(2, (3, 2))
    assert out[:, :, 0].count_nonzero() == 0
    assert torch.equal(out[:, :, 1:].unflatten(2, (3, 2))[..., 0, :], grid[..., 1, :])
    assert out[:, :, 1:].unflatten(2, (3, 2))[..., 1, :].count_nonzero() == 0


def test_linear_attention_costs_linearly_many_products_and_softmax_quadratically_many():
    def cost(attention, tokens):
        return counter.count(attention.eval(), torch.randn(1, tokens, 32)).macs

    softmax, linear = (
        [cost(make(side), side * side) / side**2 for side in (8, 16)]
        for make in (build_softmax, build_linear)
    )
    assert linear[0] == linear[1] and softmax[1] > 1.5 * softmax[0]
    # projections, k^T v and q (k^T v), the normaliser, the convolution
    assert linear[0] == 4 * 32 * 32 + 2 * 32 * 16 + 32 + 25 * 32


def build_softmax(_side):
    return Attention(32, num_heads=2)


def build_linear(side):
    return LinearAttention(Attention(32, num_heads=2), 0, (side, side))


@pytest.mark.parametrize(("name", "left"), [("vit", 0), ("mixer", 6)])
@torch.no_grad()
def test_folding_every_norm_of_a_model_leaves_its_function_as_it_is(
    make_model, make_data, name, left
):
    model, images = make_model(name), make_data(name).calibration
    reader = readers(model)
    assert len(reader) == 13
    for norm in reader:
        new = PRepBN(model.get_submodule(norm)).eval()
        for tensor in (new.bn.weight, new.bn.bias, new.bn.running_mean):
            tensor.normal_()
        new.bn.running_var.uniform_(0.5, 2)
        model.set_submodule(norm, new)
    before = model(images)
    for norm in reader:
        fold(model, norm, reader[norm])
    torch.testing.assert_close(model(images), before, rtol=1e-3, atol=1e-4)
    assert not any(
        isinstance(module, (PRepBN, nn.LayerNorm, nn.BatchNorm2d)) for module in model.modules()
    )
    # norms in front of a mixer's token MLPs
    assert sum(isinstance(module, Affine) for module in model.modules()) == left


@pytest.mark.parametrize(
    ("name", "share", "left"), [("vit", 1.0, 0), ("vit", 0.5, 7), ("mixer", 1.0, 0)]
)
def test_a_trained_model_has_no_replaced_norm_left_and_exports(
    make_model, make_data, name, share, left
):
    data = make_data(name)
    model = SLAB(norms=share).compress(make_model(name), data)
    images = data.calibration
    assert sum(isinstance(module, nn.LayerNorm) for module in model.modules()) == left
    assert (
        not any(isinstance(module, (PRepBN, nn.BatchNorm2d)) for module in model.modules())
        and not model.training
    )
    program = torch.export.export(
        model, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.testing.assert_close(program.module()(images[:5]), model(images[:5]))


def test_shares_take_the_last_first_and_nothing_replaced_is_dense(make_model, make_data):
    assert (
        last(["a", "b", "c"], 0.67) == ["b", "c"]
        and last(["a"], 0.0) == []
        and last(["a", "b"], 1.0) == ["a", "b"]
    )
    model, data, images = make_model("vit"), make_data("vit"), torch.randn(3, 1, 16, 16)
    assert torch.equal(SLAB(norms=0.0).compress(copy.deepcopy(model), data)(images), model(images))
    assert data.images_seen == 0


def test_models_without_what_it_replaces_are_skipped_with_a_reason(make_model):
    assert SLAB().skip(make_model("resnet")).startswith("no LayerNorm")
    assert SLAB(attentions=1.0).skip(make_model("mixer")) == "no attention layer to make linear"
    assert (
        SLAB(attentions=1.0).skip(make_model("vit")) is None
        and SLAB().skip(make_model("mixer")) is None
    )
