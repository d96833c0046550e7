import copy
from functools import reduce

import pytest
import torch
from timm.layers import LayerNorm2d
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from timm.models.resnet import BasicBlock, Bottleneck, downsample_avg, downsample_conv
from torch import nn

from harness.models.cifar_resnet import ZeroPadShortcut
from methods.parts.depth.conv_merge import (
    Kernel,
    Segment,
    add_branch,
    chain,
    compose,
    convolution,
    identity,
    kernel,
    mergeable,
    merged,
    move_padding,
    normalised,
    pointwise,
    segmented,
)

X = torch.linspace(-3, 3, 2 * 6 * 81, dtype=torch.float64).sin().mul(7).sin().view(2, 6, 9, 9)


def plain(values, bias=0.0, padding=0):
    return Kernel(
        torch.tensor([[[values]]], dtype=torch.float64),
        torch.tensor([bias], dtype=torch.float64),
        1,
        padding,
        False,
    )


def random_norm(width):
    norm = nn.BatchNorm2d(width, eps=1e-3).double().eval()
    (
        norm.weight.data.normal_(),
        norm.bias.data.normal_(),
        norm.running_mean.normal_(),
        norm.running_var.uniform_(0.5, 2),
    )
    return norm


def shaken(module):
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            (
                part.weight.data.uniform_(0.5, 1.5),
                part.bias.data.normal_(),
                part.running_mean.normal_(),
                part.running_var.uniform_(0.5, 2),
            )
    return module.double().eval()


def equal(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_one_two_and_three_four_merge_to_three_ten_eight():
    both = compose(plain([1.0, 2.0]), plain([3.0, 4.0]))
    assert both.W.flatten().tolist() == [3.0, 10.0, 8.0] and both.b.item() == 0.0


def test_two_scalar_convolutions_merge_to_six_x_plus_eight():
    both = compose(plain([2.0], 1.0), plain([3.0], 5.0))
    assert (both.W.item(), both.b.item()) == (6.0, 8.0)


def test_a_worked_norm_is_folded_to_five_and_minus_two():
    norm = nn.BatchNorm2d(1, eps=1e-3).double().eval()  # gamma 2, beta 1, mean 3, var + eps = 4
    (
        norm.weight.data.fill_(2),
        norm.bias.data.fill_(1),
        norm.running_mean.fill_(3),
        norm.running_var.fill_(4 - norm.eps),
    )
    one = normalised(plain([5.0]), norm)
    equal(
        torch.stack([one.W.squeeze(), one.b.squeeze()]),
        torch.tensor([5.0, -2.0], dtype=torch.float64),
    )


@pytest.mark.parametrize(
    "shapes",
    [
        [(3, 1, 1), (1, 1, 1), (3, 1, 1)],
        [(1, 1, 1), (3, 2, 1), (1, 1, 1)],
        [(3, 2, 1), (3, 2, 1), (5, 1, 1)],
    ],
)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_three_in_a_row_with_moved_padding_equal_one_up_to_the_border(shapes, groups, bias):
    convs = [nn.Conv2d(6, 6, k, s, p and k // 2, groups=groups, bias=bias) for k, s, p in shapes]
    row = nn.Sequential(*(part for conv in convs for part in (conv, random_norm(6)))).double()
    size = row(X).shape
    move_padding(convs)
    one = reduce(
        compose,
        [normalised(kernel(conv), norm) for conv, norm in zip(row[::2], row[1::2], strict=True)],
    )
    layer = convolution(one, convs[0].weight)
    equal(layer(X), row(X))
    assert row(X).shape == size
    assert layer.groups == (6 if groups == 6 else 1)


def test_sizes_three_one_three_make_five_and_without_one_three_they_make_three():
    three, one = plain([1.0, 2.0, 3.0]), plain([4.0])
    assert reduce(compose, [three, one, three]).W.shape[-1] == 5
    assert compose(three, one).W.shape[-1] == 3


def test_padding_between_two_convolutions_is_refused_because_it_changes_what_the_border_sees():
    first, second = (nn.Conv2d(6, 6, 3, padding=1).double() for _ in range(2))
    with pytest.raises(ValueError, match="move its padding"):
        compose(kernel(first), kernel(second))
    before = second(first(X))
    move_padding([first, second])
    difference = (second(first(X)) - before).abs()
    assert difference[:, :, 1:-1, 1:-1].max() < 1e-10 < 1e-3 < difference.max()


@pytest.mark.parametrize("groups", [1, 6])
def test_an_identity_shortcut_adds_one_at_the_centre_and_leaves_a_depthwise_kernel_depthwise(
    groups,
):
    conv = nn.Conv2d(6, 6, 3, padding=1, groups=groups).double()
    one = add_branch(kernel(conv), identity(6, conv.weight))
    layer = convolution(one, conv.weight)
    equal(layer(X), conv(X) + X)
    assert layer.groups == groups
    difference = layer.weight - conv.weight
    assert difference.sum().round().item() == 6 and difference[0, 0, 1, 1].round().item() == 1


def test_the_three_branches_of_repvgg_are_one_convolution():
    wide, narrow, norms = (
        nn.Conv2d(6, 6, 3, padding=1, bias=False).double(),
        nn.Conv2d(6, 6, 1, bias=False).double(),
        [random_norm(6) for _ in range(3)],
    )
    branches = [
        normalised(one, norm)
        for one, norm in zip(
            [kernel(wide), kernel(narrow), identity(6, wide.weight)], norms, strict=True
        )
    ]
    layer = convolution(reduce(add_branch, branches), wide.weight)
    equal(layer(X), norms[0](wide(X)) + norms[1](narrow(X)) + norms[2](X))


def test_branches_that_see_different_windows_are_refused():
    with pytest.raises(ValueError, match="cannot be added"):
        add_branch(plain([1.0, 2.0, 3.0]), plain([1.0]))
    with pytest.raises(ValueError, match="cannot be added"):
        add_branch(kernel(nn.Conv2d(6, 6, 3, 2, padding=1)), identity(6, X))


@pytest.mark.parametrize("shortcut", [downsample_conv(6, 8, 1, 2), ZeroPadShortcut(1, 1)])
def test_a_strided_shortcut_is_found_to_be_a_pointwise_convolution(shortcut):
    shortcut = shaken(shortcut)
    one = pointwise(shortcut, 6, 2, X)
    equal(convolution(one, X)(X), shortcut(X))
    assert one.W.shape == (8, 6, 1, 1)


@pytest.mark.parametrize(
    "shortcut", [downsample_conv(6, 8, 3, 2), downsample_avg(6, 8, 1, 2), LayerNorm2d(6)]
)
def test_a_shortcut_that_mixes_pixels_or_is_not_affine_is_not(shortcut):
    assert pointwise(shaken(shortcut), 6, 2, X) is None


BLOCKS = {
    "basic": lambda: BasicBlock(6, 6),
    "basic, strided": lambda: BasicBlock(6, 8, stride=2, downsample=downsample_conv(6, 8, 1, 2)),
    "basic, option A": lambda: BasicBlock(6, 8, stride=2, downsample=ZeroPadShortcut(1, 1)),
    "bottleneck": lambda: Bottleneck(6, 4, downsample=downsample_conv(6, 16, 1)),
    "inverted": lambda: InvertedResidual(6, 6, exp_ratio=2.0),
    "inverted, strided": lambda: InvertedResidual(6, 4, exp_ratio=2.0, stride=2),
    "separable": lambda: DepthwiseSeparableConv(6, 6),
}


@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_a_block_spelled_out_is_the_same_function(make):
    block = shaken(make())
    expected = block(X.clone())
    assert mergeable(block)
    assert torch.equal(chain(block)(X), expected)


@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_a_block_merged_whole_is_one_convolution_and_an_activation(make):
    block = chain(shaken(make()))
    convs = [layer[0] for layer in block.layers]
    # nothing wide behind a stride
    kept = tuple(
        i
        for i, conv in enumerate(convs)
        if i == 0 or conv.kernel_size == (1, 1) or convs[0].stride == (1, 1)
    )
    cut = segmented(block, [Segment(0, len(convs), kept)])
    one = merged(copy.deepcopy(cut))
    assert [type(part) for part in one] == [nn.Conv2d, type(cut.last)] and not isinstance(
        cut.last, nn.Identity
    )
    equal(one(X), cut(X))


def test_squeeze_and_excitation_dilation_and_drop_path_are_left_alone():
    assert not mergeable(
        InvertedResidual(6, 6, se_layer=lambda width, **_: nn.Conv2d(width, width, 1))
    )
    assert not mergeable(BasicBlock(6, 6, dilation=2)) and not mergeable(
        BasicBlock(6, 6, drop_path=nn.Dropout())
    )
    assert not mergeable(nn.Conv2d(6, 6, 1))
