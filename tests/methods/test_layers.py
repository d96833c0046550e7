"""Which layers a method works on, in what order, and what they see."""

import pytest
import torch
from torch import nn

from methods.parts.network.layers import (
    blocks,
    by_block,
    classifier,
    depthwise,
    feature_rows,
    prunable,
    stem,
    visit_inputs,
    weighted,
)


@pytest.mark.parametrize(
    ("name", "stem_layers", "head", "block_count"),
    [
        ("resnet", {"conv1.0", "conv1.3", "conv1.6"}, {"fc"}, 8),
        ("mobilenet", {"conv_stem"}, {"classifier"}, 7),
        ("vit", {"patch_embed.proj"}, {"head"}, 6),
        ("mixer", {"stem.proj"}, {"head"}, 6),
    ],
)
def test_stem_classifier_and_blocks_are_found(make_model, name, stem_layers, head, block_count):
    model = make_model(name)
    assert (stem(model), classifier(model), len(blocks(model))) == (stem_layers, head, block_count)


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_prunable_leaves_out_stem_classifier_and_depthwise_and_nothing_else(make_model, name):
    model = make_model(name)
    left_out = set(weighted(model)) - set(prunable(model))
    assert left_out == stem(model) | classifier(model) | {
        key for key, layer in weighted(model).items() if depthwise(layer)
    }


def test_layers_are_grouped_by_block_in_order(make_model):
    model = make_model("mobilenet")
    groups = [list(group) for group in by_block(model, prunable(model))]
    assert (
        groups[0] == ["blocks.0.0.conv_pw"]
        and groups[1] == ["blocks.1.0.conv_pw", "blocks.1.0.conv_pwl"]
        and groups[-1] == ["conv_head"]
    )


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2)])
def test_a_convolution_is_its_flattened_weight_times_its_feature_rows(stride, padding, dilation):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, stride=stride, padding=padding, dilation=dilation, bias=False)
    x = torch.randn(2, 3, 9, 8)
    by_rows = feature_rows(conv, x) @ conv.weight.flatten(1).T
    torch.testing.assert_close(
        by_rows, conv(x).flatten(2).transpose(1, 2).flatten(0, 1), rtol=1e-4, atol=1e-5
    )


def test_visiting_sees_every_token_of_every_image_and_leaves_no_hook_behind(make_model, track_data):
    model, seen = make_model("vit"), []
    layers = {"blocks.0.attn.qkv": prunable(model)["blocks.0.attn.qkv"]}
    visit_inputs(model, layers, track_data.calibration, lambda name, rows: seen.append(rows.shape))
    assert sum(rows for rows, _ in seen) == 64 * 17 and all(
        not module._forward_pre_hooks for module in model.modules()
    )
