import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, Mlp
from torch import nn

from methods.parts.pruning import channels


def bottlenecks():
    return timm.create_model(
        "resnet50", layers=[1, 1, 1, 1], channels=[8, 8, 12, 12], in_chans=1, num_classes=10
    )


def squeezed():
    return timm.create_model("semnasnet_050", in_chans=1, num_classes=10)


@pytest.fixture
def make_any(make_model):
    """Build one of the track's models, or one with bottlenecks or
    squeeze-and-excitation, in float64, with a classifier that is not zero.
    """

    def make(name):
        torch.manual_seed(0)
        model = {"bottlenecks": bottlenecks, "squeezed": squeezed}.get(
            name, lambda: make_model(name)
        )().eval()
        model.get_classifier().weight.data.normal_()
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.data.uniform_(0.5, 1.5)
                norm.bias.data.normal_(std=0.3)
        return model.double()

    return make


def silence(model, group, gone):
    """Mask the units `gone` of `group` where its removal acts."""
    channels = group.columns[gone].flatten()
    norms = [module for module in group.between if isinstance(module, BatchNormAct2d)]
    if norms:
        norms[-1].register_forward_hook(
            lambda module, args, output: output.index_fill(1, channels, 0)
        )
        return
    axis = 1 if isinstance(group.readers[0], nn.Conv2d) else -1
    group.readers[0].register_forward_pre_hook(
        lambda module, args: (args[0].index_fill(axis, channels, 0),)
    )


ALL = ["resnet", "mobilenet", "vit", "mixer", "bottlenecks", "squeezed"]


@pytest.mark.parametrize("name", ALL)
def test_removing_units_equals_masking_them(make_any, name):
    model = make_any(name)
    masked, removed = copy.deepcopy(model), copy.deepcopy(model)
    units = [
        (number, unit)
        for number, group in enumerate(channels.groups(model))
        for unit in range(0, group.units - 1, 3)
    ]
    for number, group in enumerate(channels.groups(masked)):
        silence(masked, group, torch.tensor([unit for where, unit in units if where == number]))
    channels.remove(removed, units)
    size = 16 if name in ("vit", "mixer") else 32
    images = torch.randn(2, 1, size, size).double()
    assert sum(p.numel() for p in removed.parameters()) < 0.9 * sum(
        p.numel() for p in model.parameters()
    )
    assert not torch.allclose(removed(images), model(images), rtol=1e-3)
    torch.testing.assert_close(removed(images), masked(images), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet", [8, 8, 16, 16, 32, 32, 48, 48]),
        ("mobilenet", [64, 96, 96, 96, 128, 128]),
        ("vit", [3, 192] * 6),
        ("mixer", [24, 192] * 6),
        ("bottlenecks", [8, 8, 8, 8, 12, 12, 12, 12]),
    ],
)
def test_the_free_groups_are_those_inside_of_blocks(make_any, name, expected):
    assert [group.units for group in channels.groups(make_any(name))] == expected


def test_a_head_is_made_by_its_rows_of_q_k_and_v(make_model):
    model = make_model("vit")
    group = channels.groups(model)[0]
    weight = model.blocks[0].attn.qkv.weight.view(3, 3, 16, 48)  # part, head, row, input
    assert group.name == "blocks.0.attn.qkv"
    torch.testing.assert_close(group.weights(), weight.transpose(0, 1).flatten(1), rtol=0, atol=0)


def test_surgery_corrects_all_stated_sizes(make_model):
    vit, mobilenet = make_model("vit"), make_model("mobilenet")
    attention, block = vit.blocks[0].attn, mobilenet.blocks[1][0]
    channels.remove(vit, [(0, 1), (1, 7)])
    channels.remove(mobilenet, [(0, 5)])
    assert (attention.num_heads, attention.head_dim, attention.attn_dim, attention.scale) == (
        2,
        16,
        32,
        0.25,
    )
    assert (
        attention.qkv.out_features,
        attention.proj.in_features,
        vit.blocks[0].mlp.fc2.in_features,
    ) == (96, 32, 191)
    assert (
        block.conv_dw.groups,
        block.conv_dw.in_channels,
        block.conv_dw.out_channels,
        block.bn2.num_features,
    ) == (63, 63, 63, 63)
    assert (block.conv_pw.out_channels, block.conv_pwl.in_channels, block.conv_pw.in_channels) == (
        63,
        63,
        16,
    )


def test_channels_that_are_mixed_or_coupled_on_the_way_are_left_alone():
    assert channels.groups(Mlp(4, 8, norm_layer=nn.LayerNorm)) == []
    assert channels.groups(timm.create_model("resnext50_32x4d", layers=[1, 1, 1, 1])) == []
    assert channels.groups(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))) == []


def test_units_go_by_rank_at_one_pace_and_the_best_stays():
    assert channels.removal_order([torch.tensor([3.0, 1.0, 2.0])]) == [(0, 1), (0, 2)]
    # shares at which units go: group 0 of two units 1/4; group 1 of four 1/8, 3/8, 5/8;
    # ties to the lower index
    assert channels.removal_order(
        [torch.tensor([5.0, 4.0]), torch.tensor([0.0, 0.0, 2.0, 1.0])]
    ) == [(1, 0), (0, 1), (1, 1), (1, 3)]


@pytest.mark.parametrize("ratio", [0.9, 0.5, 0.3])
@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_the_budget_is_met_closely_and_never_exceeded(make_model, make_data, name, ratio):
    model, data = make_model(name), make_data(name)
    order = channels.removal_order(
        [group.weights().abs().sum(1) for group in channels.groups(model)]
    )
    dense = data.macs(model)
    removed = channels.prune_to_macs(model, order, ratio, data)
    assert ratio - 0.005 < data.macs(model) / dense <= ratio
    assert set(removed) < set(order)


def test_a_full_budget_removes_nothing(make_model, make_data):
    model, dense = make_model("vit"), make_model("vit")
    order = channels.removal_order([torch.arange(group.units) for group in channels.groups(model)])
    assert channels.prune_to_macs(model, order, 1.0, make_data("vit")) == []
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), dense.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_one_unit_per_group_still_computes_and_less_is_out_of_reach(make_model, make_data, name):
    model, data = make_model(name), make_data(name)
    order = channels.removal_order([torch.arange(group.units) for group in channels.groups(model)])
    with pytest.raises(
        ValueError,
        match=r"macs 0\.01 is out of reach: with one unit left in each group 0\.\d+ of the MACs "
        r"remain; "
        r"ask for more",
    ):
        channels.prune_to_macs(model, order, 0.01, data)
    channels.remove(model, order)
    assert [group.units for group in channels.groups(model)] == [1] * len(channels.groups(model))
    assert model(data.calibration[:2]).isfinite().all()


@pytest.mark.parametrize("name", ["mobilenet", "vit"])
def test_a_pruned_model_exports_with_any_batch(make_model, make_data, name):
    model, images = make_model(name), make_data(name).calibration
    channels.remove(model, [(number, 0) for number in range(len(channels.groups(model)))])
    program = torch.export.export(
        model, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.testing.assert_close(program.module()(images[:5]), model(images[:5]))
