import copy

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.nn.functional import cosine_similarity

from methods.block_drop import BlockDrop, cosine, most_similar, similarity
from methods.parts.depth.drop import halves, units


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("x", "f", "expected"),
    [
        ([1.0, 0.0], [0.0, 1.0], 0.7071),
        ([3.0, 4.0], [-6.0, -8.0], -1.0),
        ([3.0, 4.0], [0.0, 0.0], 1.0),
    ],
)
def test_the_score_is_the_cosine_before_and_after(x, f, expected):
    X, F = torch.tensor([[x]]), torch.tensor([[f]])
    torch.testing.assert_close(cosine(X, X + F), torch.tensor([[expected]]), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        cosine(X[..., None].transpose(1, 2), (X + F)[..., None].transpose(1, 2)),
        torch.tensor([[[expected]]]),
        rtol=0,
        atol=1e-4,
    )


def test_joint_ranks_attention_and_mlps_together_and_ties_go_to_the_earlier():
    # attention 0, mlp 0, attention 1, mlp 1
    assert most_similar(torch.tensor([0.9, 0.8, 0.5, 0.95]), 2) == [0, 3]
    assert most_similar(torch.tensor([0.5, 0.5, 0.5]), 2) == [0, 1]


@pytest.mark.parametrize("name", ["vit", "mixer"])
def test_a_block_is_its_two_halves_in_series(make_model, name):
    block, x = make_model(name).blocks[0], torch.randn(2, 17 if name == "vit" else 16, 48)
    assert torch.equal(halves(block)(x), block(x))


@pytest.mark.parametrize(
    ("unit", "expected"), [("attention", "blocks.2.attention"), ("joint", "blocks.2.attention")]
)
def test_an_attention_layer_that_adds_nothing_goes_first_and_leaves_the_logits_as_they_are(
    make_model, make_data, unit, expected
):
    model, data = make_model("vit"), make_data("vit")
    nn.init.zeros_(model.blocks[2].attn.proj.weight), nn.init.zeros_(model.blocks[2].attn.proj.bias)
    compressed = BlockDrop(unit=unit, count=1).compress(copy.deepcopy(model), data)
    images = data.calibration
    assert isinstance(compressed.get_submodule(expected), nn.Identity)
    assert torch.equal(compressed(images), model(images))
    attention = model.blocks[2].attn
    assert parameters(compressed) == parameters(model) - parameters(attention) - parameters(
        model.blocks[2].norm1
    )


@torch.no_grad()
def test_scores_are_those_of_the_authors_rule_on_norm_and_branch(make_model, make_data):
    model, images = make_model("vit"), make_data("vit").calibration
    seen = {}
    for index, block in enumerate(model.blocks):
        block.norm1.register_forward_hook(
            lambda module, args, output, key=index: seen.__setitem__(("x", key), args[0])
        )
        block.attn.register_forward_hook(
            lambda module, args, output, key=index: seen.__setitem__(("f", key), output)
        )
    model(images)
    expected = [
        cosine_similarity(seen["x", i], seen["x", i] + seen["f", i], dim=-1).mean()
        for i in range(6)
    ]
    split = make_model("vit")
    for index in range(6):
        split.blocks[index] = halves(split.blocks[index])
    found = similarity(split, [f"blocks.{i}.attention" for i in range(6)], images)
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet", ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]),
        ("mobilenet", ["blocks.1.1", "blocks.1.2", "blocks.2.1", "blocks.2.2"]),
        ("vit", [f"blocks.{i}" for i in range(6)]),
        ("mixer", [f"blocks.{i}" for i in range(6)]),
    ],
)
def test_blocks_with_an_identity_shortcut_can_be_dropped(make_model, name, expected):
    assert units(make_model(name), "block") == expected


@torch.no_grad()
def test_the_batch_norms_of_a_cnn_are_estimated_anew_after_a_drop(make_model, make_data):
    model, data = make_model("resnet"), make_data("resnet")
    compressed = BlockDrop(unit="block", count=2).compress(copy.deepcopy(model), data)
    seen = []
    compressed.layer4[0].bn1.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    compressed(data.calibration)
    torch.testing.assert_close(
        compressed.layer4[0].bn1.running_mean, seen[0].mean((0, 2, 3)), rtol=0.05, atol=0.02
    )
    assert not compressed.training


@pytest.mark.parametrize("unit", ["attention", "mlp", "joint", "block"])
@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_dropping_all_that_can_be_dropped_still_computes_and_exports(
    make_model, make_data, name, unit
):
    model, data = make_model(name), make_data(name)
    count = len(units(model, unit))
    if unit != "block" and name in ("resnet", "mobilenet"):
        assert (
            BlockDrop(unit=unit).skip(model)
            == f"no unit of kind '{unit}' that can be dropped: drop 'block' in a CNN"
        )
        return
    assert BlockDrop(unit=unit, count=count).skip(model) is None
    asked = f"{count + 1} units of kind '{unit}' asked for, but only {count} can be dropped"
    assert BlockDrop(unit=unit, count=count + 1).skip(model) == asked
    compressed = BlockDrop(unit=unit, count=count).compress(copy.deepcopy(model), data)
    images = data.calibration
    assert data.macs(compressed) < data.macs(model) and parameters(compressed) < parameters(model)
    assert compressed(images).isfinite().all()
    program = torch.export.export(
        compressed, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.testing.assert_close(program.module()(images[:5]), compressed(images[:5]))


@torch.no_grad()
def test_dropping_the_most_similar_block_hurts_less_than_dropping_the_least_similar(
    make_model, make_data
):
    model, images = make_model("vit"), make_data("vit").calibration
    # as after training, blocks differ
    for block, strength in zip(model.blocks, [4.0, 1.0, 8.0, 2.0, 6.0, 3.0], strict=True):
        block.attn.proj.weight.mul_(strength), block.mlp.fc2.weight.mul_(strength)
    names = units(model, "block")
    score = similarity(model, names, images)

    def change(index):
        dropped = copy.deepcopy(model)
        dropped.set_submodule(names[index], nn.Identity())
        return (dropped(images) - model(images)).norm()

    assert change(int(score.argmax())) < 0.7 * change(int(score.argmin()))


@pytest.mark.parametrize("name", ["resnet", "mixer"])
def test_dropping_nothing_is_dense_and_draws_no_images(make_model, make_data, name):
    model, data, images = make_model(name), make_data(name), torch.randn(3, 1, 16, 16)
    compressed = BlockDrop(unit="block", count=0).compress(copy.deepcopy(model), data)
    assert torch.equal(compressed(images), model(images))
    assert data.images_seen == 0


def test_settings_are_checked():
    settings = TypeAdapter(BlockDrop)
    assert settings.validate_python({"unit": "joint", "count": 2}) == BlockDrop(
        unit="joint", count=2
    )
    for wrong in ({"unit": "head"}, {"count": -1}, {"blocks": 1}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
