import copy
import warnings

import pytest
import torch
import torch_pruning as tp
from pydantic import TypeAdapter, ValidationError
from timm.models.vision_transformer import Attention
from torch import nn

from harness.models import build
from methods.depgraph import DepGraph, norms, order, prune_in_steps, without


class Images:
    """The part of Data that the surgery needs."""

    def __init__(self, *shape):
        self.image_shape = shape


def two_layers():
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)
    ).eval()
    model[1].weight.data = torch.tensor([[1.0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 3]])
    model[2].weight.data = torch.tensor([[1.0, 0, 3], [1, 0, 0]])
    return model


def test_the_norm_of_a_hidden_unit_is_that_of_its_row_and_its_column():
    scores = norms(two_layers(), Images(1, 2, 2))
    squares = torch.tensor([2.0 + 2, 4 + 0, 9 + 9]) / 2
    assert list(scores) == ["1"]
    torch.testing.assert_close(scores["1"], squares / squares.mean())


def test_the_lowest_units_of_all_groups_go_first_and_each_group_keeps_its_floor():
    scores = {"a": torch.tensor([0.9, 0.1, 2.0]), "b": torch.tensor([0.5, 0.1, 0.2, 3.2])}
    assert order(scores, {"a": 1, "b": 2}) == [("a", 1), ("b", 1), ("b", 2), ("a", 0)]


@pytest.mark.parametrize("root", ["layer2.0.downsample.0", "layer3.1.conv1"])
def test_a_removed_channel_of_a_resnet_equals_one_whose_norms_are_zero(make_model, make_data, root):
    model, data = make_model("resnet"), make_data("resnet")
    masked = copy.deepcopy(model)
    for norm in (
        ["layer2.0.downsample.1", "layer2.0.bn2", "layer2.1.bn2"]
        if "downsample" in root
        else ["layer3.1.bn1"]
    ):
        for tensor in (masked.get_submodule(norm).weight, masked.get_submodule(norm).bias):
            tensor.data[[3, 5]] = 0
    images, smaller = torch.randn(4, 1, 16, 16), without(model, [(root, 3), (root, 5)], data)
    torch.testing.assert_close(smaller(images), masked(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_a_dimension_removed_from_all_heads_equals_one_of_zeros(make_model, make_data, fused):
    model, data = make_model("vit"), make_data("vit")
    masked, units = copy.deepcopy(model), [("blocks.2.attn", 0), ("blocks.2.attn", 7)]
    rows = [
        part * 48 + head * 16 + unit for part in range(3) for head in range(3) for unit in (0, 7)
    ]
    masked.blocks[2].attn.qkv.weight.data[rows] = 0
    masked.blocks[2].attn.qkv.bias.data[rows] = 0
    smaller = without(model, units, data)
    for attention in (module for module in smaller.modules() if isinstance(module, Attention)):
        attention.fused_attn = fused
    images = torch.randn(4, 1, 16, 16)
    torch.testing.assert_close(smaller(images), masked(images), rtol=1e-4, atol=1e-5)
    assert smaller.blocks[2].attn.qkv.weight.shape == (126, 48)


def test_a_channel_of_the_residual_stream_of_a_vit_leaves_every_layer(make_model, make_data):
    smaller = without(make_model("vit"), [("blocks.5.mlp.fc2", 11)], make_data("vit"))
    assert (
        smaller.pos_embed.shape[2]
        == smaller.cls_token.shape[2]
        == smaller.patch_embed.proj.out_channels
        == 47
    )
    assert (
        smaller.head.in_features
        == smaller.blocks[3].attn.qkv.in_features
        == smaller.blocks[0].norm1.normalized_shape[0]
        == 47
    )
    assert smaller(torch.randn(2, 1, 16, 16)).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit"])
def test_steps_remove_what_the_librarys_own_pruner_removes(make_model, make_data, name):
    data, ours, library, steps = make_data(name), make_model(name), make_model(name), 30
    total = sum(map(len, norms(ours, data).values()))
    pruner = tp.pruner.BasePruner(
        library,
        (torch.zeros(1, 1, 16, 16),),
        tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=1.0,
        iterative_steps=steps,
        ignored_layers=[library.get_classifier()],
        num_heads={
            module.qkv: module.num_heads
            for module in library.modules()
            if isinstance(module, Attention)
        },
        in_channel_groups={},
        out_channel_groups={},
    )
    for step in (1, 2):
        scores = norms(ours, data)
        count = sum(map(len, scores.values())) - int(total * (1 - step / steps))
        ours = without(ours, order(scores, dict.fromkeys(scores, 1))[:count], data)
        pruner.step()
    expected = library.state_dict()
    for key, tensor in ours.state_dict().items():
        if "attn.qkv" not in key:  # whose q we rescale
            assert torch.equal(tensor, expected[key]), key


def test_channels_behind_a_zero_padded_shortcut_and_the_stream_of_a_mixer_are_left_alone(
    params, make_model, make_data
):
    resnet = build.build(params.tracks["cifar10_cpu"].models["resnet20"], 3, 10).eval()
    assert list(norms(resnet, Images(3, 32, 32))) == [
        f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)
    ]
    assert all("fc1" in name for name in norms(make_model("mixer"), make_data("mixer")))


@pytest.mark.parametrize(
    ("name", "ratio"), [("resnet", 0.7), ("mobilenet", 0.5), ("vit", 0.5), ("mixer", 0.3)]
)
def test_the_budget_is_met_within_half_a_percent_and_nothing_is_left_behind(
    make_model, make_data, name, ratio
):
    model, data = make_model(name), make_data(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smaller = prune_in_steps(model, ratio, 8, data)
    assert 0.995 * ratio <= data.macs(smaller) / data.macs(model) <= ratio
    assert data.images_seen == 0
    for module in smaller.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert all(
        tensor.requires_grad and tensor.is_leaf and tensor.grad is None
        for tensor in smaller.parameters()
    )


def test_units_of_small_group_norm_change_the_outputs_less_than_units_of_large_norm(
    make_model, make_data
):
    model, data = make_model("vit"), make_data("vit")
    for block in model.blocks:
        block.mlp.fc1.weight.data.mul_(
            torch.linspace(0.2, 1.8, 192)[torch.randperm(192)].view(-1, 1)
        )
    scores = {name: score for name, score in norms(model, data).items() if "fc1" in name}
    units = order(scores, dict.fromkeys(scores, 1))
    images = torch.randn(16, 1, 16, 16)
    changes = [
        (without(model, part, data)(images) - model(images)).norm()
        for part in (units[:300], units[-300:])
    ]
    assert changes[0] < 0.5 * changes[1]


def test_a_full_budget_is_dense_and_an_impossible_one_is_refused(make_model, make_data):
    model, data = make_model("vit"), make_data("vit")
    assert DepGraph(macs=1.0).compress(model, data) is model
    with pytest.raises(ValueError, match="out of reach"):
        prune_in_steps(make_model("mixer"), 0.01, 5, make_data("mixer"))


def test_a_pruned_model_is_fine_tuned_within_its_budget(make_model, make_data):
    data = make_data("resnet")
    compressed = DepGraph(macs=0.5).compress(make_model("resnet"), data)
    assert data.images_seen == data.steps(data.fine_tune) * data.fine_tune.batch
    assert not compressed.training


def test_settings_are_checked():
    for wrong in ({"macs": 0}, {"macs": 1.5}, {"steps": 0}, {"reg": 1}):
        with pytest.raises(ValidationError):
            TypeAdapter(DepGraph).validate_python(wrong)
