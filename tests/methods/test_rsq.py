"""The rotation changes no logit, worked tokens get their weights, uniform weights
are GPTQ, and what the paper claims holds in miniature.
"""

import copy

import pytest
import timm
import torch
from torch import nn

from methods.gptq import GPTQ
from methods.parts.network.gram import moments
from methods.parts.network.layers import prunable, weighted
from methods.parts.network.walk import Stage, stages
from methods.parts.quantization.gptq import gptq
from methods.parts.quantization.quantize import round_to_nearest, rule
from methods.parts.quantization.rotation import rotatable, rotate, rotation
from methods.rsq import RSQ, attention, importance, scaled


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("D", "flat"),
    [(12, True), (48, True), (64, True), (192, True), (768, True), (36, False), (50, False)],
)
def test_rotations_are_orthogonal_and_spread_every_feature_evenly_where_there_is_a_hadamard_matrix(
    D, flat
):
    Q = rotation(D, seeded())
    torch.testing.assert_close(Q @ Q.T, torch.eye(D, dtype=torch.float64))
    assert (Q.abs().max() - Q.abs().min() < 1e-12) == flat
    assert not torch.equal(Q, rotation(D, seeded(1)))


KINDS = [
    {},
    {"init_values": 0.5},
    {"class_token": False, "global_pool": "avg"},
    {"reg_tokens": 2, "qkv_bias": False, "qk_norm": True},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_rotated_transformer_without_layer_norms_gives_the_same_logits(kind):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=4,
        embed_dim=48,
        depth=2,
        num_heads=3,
        num_classes=7,
        **kind,
    ).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x, before = torch.randn(4, 3, 16, 16), copy.deepcopy(model)
    assert rotatable(model)
    rotate(model, rotation(48, seeded()))
    assert not [
        module
        for module in model.modules()
        if isinstance(module, nn.LayerNorm) and module.normalized_shape == (48,)
    ]
    assert (model.blocks[0].mlp.fc1.weight - before.blocks[0].mlp.fc1.weight).abs().max() > 0.01
    with torch.no_grad():
        torch.testing.assert_close(model(x), before(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [{"pre_norm": True}, {"global_pool": "map"}], ids=str)
def test_a_transformer_that_cannot_be_rotated_is_skipped_with_the_reason(kind):
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=4,
        embed_dim=48,
        depth=1,
        num_heads=3,
        **kind,
    )
    assert "cannot be rotated" in RSQ().skip(model)


def test_the_two_tokens_and_equal_ones():
    torch.testing.assert_close(
        scaled(torch.tensor([[0.2, 0.8], [3.0, 3.0]]), 0.005),
        torch.tensor([[0.00995, 1.99005], [1.0, 1.0]]),
        rtol=1e-4,
        atol=0,
    )
    assert torch.equal(scaled(torch.rand(3, 5), 1.0), torch.ones(3, 5))


def test_attention_is_that_of_the_block(make_model):
    block, seen = make_model("vit").blocks[1], []
    block.attn.fused_attn = False
    block.attn.attn_drop.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    x = torch.randn(3, 17, 48)
    with torch.no_grad():
        block(x)
        torch.testing.assert_close(attention(block, x), seen[0].sum((1, 2)))


def test_tokens_of_a_convolution_are_the_places_of_its_output_and_token_mixing_sees_none(
    make_model, track_data
):
    for stage in stages(
        make_model("resnet"), prunable(make_model("resnet")), track_data.calibration[:3]
    ):
        for name, r in importance(stage, 0.1).items():
            rows = []
            handle = stage.layers[name].register_forward_hook(
                lambda _module, _args, y, rows=rows: rows.append(y[:, 0].numel())
            )
            stage.module(stage.inputs)
            handle.remove()
            assert [len(r)] == rows
            torch.testing.assert_close(r.view(3, -1).mean(1), torch.ones(3))
    mixer = make_model("mixer")
    stage = next(stages(mixer, prunable(mixer), track_data.calibration[:3]))
    assert {name.split(".")[2] for name in importance(stage, 0.1)} == {"mlp_channels"}


@pytest.mark.parametrize("name", ["resnet", "mixer"])
def test_equal_importance_without_rotation_is_gptq(make_model, make_data, name):
    ours, plain = (
        RSQ(3, r_min=1.0).compress(make_model(name), make_data(name)),
        GPTQ(3).compress(make_model(name), make_data(name)),
    )
    assert all(
        torch.equal(a.weight, b.weight)
        for a, b in zip(weighted(ours).values(), weighted(plain).values(), strict=True)
    )
    other = RSQ(3, r_min=0.005).compress(make_model(name), make_data(name))
    assert not all(
        torch.equal(a.weight, b.weight)
        for a, b in zip(weighted(other).values(), weighted(plain).values(), strict=True)
    )


def test_important_tokens_lose_less_than_by_gptq_and_by_gptq_less_than_by_rounding():
    generator = seeded(5)
    mixes = [torch.eye(64) + 0.3 * torch.randn(64, 64, generator=generator) for _ in range(2)]
    # (N, 2 tokens, 64), each with its own correlations
    x = torch.stack([torch.randn(400, 64, generator=generator) @ mix for mix in mixes], 1)
    layer, how = nn.Linear(64, 32, bias=False), rule(3, 64)
    layer.weight.data = torch.randn(32, 64, generator=generator)
    r = scaled(torch.tensor([[1.0, 0.0]]).expand(400, 2), 0.005).flatten()

    def error(codes):
        return float(
            (x[:, 0] @ (codes.decode(layer.weight.shape) - layer.weight.detach()).T).norm()
        )

    plain, ours = (
        gptq(layer.weight, moments(layer, {"": layer}, x, scale)[""], how, 0.01)
        for scale in (None, {"": r})
    )
    assert error(ours) < 0.9 * error(plain) < 0.9 * error(round_to_nearest(layer.weight, how))


def test_rotation_saves_a_transformer_whose_weights_have_outliers(make_model, make_data):
    model, data = make_model("vit"), make_data("vit")
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight[:, 5] *= 20
            block.mlp.fc1.weight[:, 7] *= 20
        x = data.calibration
        expected = model(x)
        errors = [
            float((method.compress(copy.deepcopy(model), data)(x) - expected).norm())
            for method in (RSQ(3), GPTQ(3))
        ]
    assert errors[0] < 0.8 * errors[1]


def test_a_stage_that_is_a_block_gives_all_its_layers_the_same_importance(make_model):
    block = make_model("vit").blocks[0]
    layers = {name: block.get_submodule(name) for name in ("attn.qkv", "mlp.fc2")}
    x = torch.randn(150, 17, 48)
    r = importance(Stage(block, layers, x), 0.005)
    assert r["attn.qkv"] is r["mlp.fc2"] and len(r["mlp.fc2"]) == 150 * 17
    torch.testing.assert_close(r["mlp.fc2"].view(150, 17), scaled(attention(block, x), 0.005))
