"""The merging of layers against the layers one after another, for whatever sizes,
strides, paddings, groups and norms it admits, borders included.
"""

import copy
from functools import reduce
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from timm.models.resnet import BasicBlock, Bottleneck, downsample_conv
from torch import nn

from methods.layer_merge import candidates
from methods.parts.depth.conv_merge import (
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
    same,
)
from methods.parts.depth.conv_merge import segmented as cut_up
from methods.parts.depth.merge import affine, merge, normalisation, scaled

quick = settings(max_examples=60, deadline=None)
WIDTHS = st.sampled_from([1, 2, 3, 4, 6])
SHAPES = st.fixed_dictionaries(
    {"kernel_size": st.integers(1, 5), "stride": st.integers(1, 3), "padding": st.integers(0, 3)}
)
SEEDS = st.integers(0, 2**32 - 1)
BLOCKS = {
    "basic": lambda width, stride: BasicBlock(
        width, width + 2, stride, downsample_conv(width, width + 2, 1, stride)
    ),
    "basic, identity": lambda width, _: BasicBlock(width, width),
    "bottleneck": lambda width, stride: Bottleneck(
        width, 2, stride, downsample_conv(width, 8, 1, stride)
    ),
    "inverted": lambda width, stride: InvertedResidual(
        width, width, 3 + 2 * (width % 3), stride, exp_ratio=2.0
    ),
    "separable": lambda width, stride: DepthwiseSeparableConv(
        width, width, 3 + 2 * (width % 3), stride
    ),
}


def equal(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def images(channels, size, seed):
    return torch.randn(
        2, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def shaken(module, seed):
    """Fill all that `module` holds with random numbers, variances above zero; double,
    in eval mode.
    """
    draw = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            uniform = torch.rand(tensor.shape, dtype=torch.float64, generator=draw)
            tensor.copy_(
                uniform + 0.5
                if name.endswith("running_var")
                else (2 * uniform - 1) / max(1.0, tensor[0].numel()) ** 0.5
            )
    return module


@st.composite
def convs(draw, channels):
    """Draw a convolution from so many channels, with any number of groups that divides
    them and any bias.
    """
    out = draw(WIDTHS)
    groups = draw(
        st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0 and out % g == 0])
    )
    return nn.Conv2d(channels, out, groups=groups, bias=draw(st.booleans()), **draw(SHAPES))


@st.composite
def rows(draw):
    """Draw one to three convolutions one after another, each with a norm; and how many
    channels go in.
    """
    first = width = draw(WIDTHS)
    row = []
    for _ in range(draw(st.integers(1, 3))):
        row.append(draw(convs(width)))
        width = row[-1].out_channels
        row.append(nn.BatchNorm2d(width, eps=draw(st.sampled_from([1e-5, 1e-3, 0.1]))))
    return first, shaken(nn.Sequential(*row), draw(SEEDS))


def one_of(row):
    return reduce(
        compose,
        [normalised(kernel(conv), norm) for conv, norm in zip(row[::2], row[1::2], strict=True)],
    )


@quick
@given(rows(), st.integers(5, 16), SEEDS)
def test_convolutions_and_norms_in_a_row_equal_the_one_they_merge_to_once_the_padding_is_the_firsts(
    drawn, size, seed
):
    channels, row = drawn
    x, total = images(channels, size, seed), 0
    for conv in reversed(row[::2]):
        total = conv.padding[0] + conv.stride[0] * total
    move_padding(row[::2])
    wide = one_of(row).W.shape[-1]
    assume(size + 2 * total >= wide)  # else there is no output
    event(f"{len(row) // 2} convolutions")
    layer = convolution(one_of(row), row[0].weight)
    equal(layer(x), row(x))
    assert layer.padding == (total, total)


@st.composite
def branches(draw, channels):
    """Draw two convolutions of the same image, as often as not with windows around the
    same pixels.
    """
    wide, other = draw(convs(channels)), draw(SHAPES)
    if draw(st.booleans()):
        margin = draw(st.integers(0, min(wide.padding[0], (wide.kernel_size[0] - 1) // 2)))
        other = {
            "kernel_size": wide.kernel_size[0] - 2 * margin,
            "stride": wide.stride[0],
            "padding": wide.padding[0] - margin,
        }
    return tuple(
        shaken(conv, draw(SEEDS))
        for conv in (
            wide,
            nn.Conv2d(channels, wide.out_channels, bias=draw(st.booleans()), **other),
        )
    )


@quick
@given(WIDTHS.flatmap(branches), st.integers(5, 12), SEEDS)
def test_two_branches_are_added_where_they_see_the_same_pixels_and_refused_elsewhere(
    drawn, size, seed
):
    wide, narrow = drawn
    margin = wide.padding[0] - narrow.padding[0]
    aligned = (
        wide.stride == narrow.stride
        and margin >= 0
        and wide.kernel_size[0] == narrow.kernel_size[0] + 2 * margin
    )
    event(f"aligned: {aligned}")
    if not aligned:
        with pytest.raises(ValueError, match="cannot be added"):
            add_branch(kernel(wide), kernel(narrow))
        return
    x = images(wide.in_channels, size, seed)
    equal(
        convolution(add_branch(kernel(wide), kernel(narrow)), wide.weight)(x), wide(x) + narrow(x)
    )


@quick
@given(WIDTHS, st.integers(0, 3), st.booleans(), SEEDS)
def test_the_identity_is_added_to_a_convolution_of_any_odd_size(channels, reach, depthwise, seed):
    conv = shaken(
        nn.Conv2d(
            channels, channels, 2 * reach + 1, padding=reach, groups=channels if depthwise else 1
        ),
        seed,
    )
    x = images(channels, 7, seed)
    layer = convolution(add_branch(kernel(conv), identity(channels, conv.weight)), conv.weight)
    equal(layer(x), conv(x) + x)
    assert layer.groups == conv.groups


@quick
@given(st.lists(WIDTHS, min_size=2, max_size=5), st.booleans(), SEEDS)
def test_linear_layers_and_norms_in_a_row_equal_the_one_map_they_merge_to(widths, bias, seed):
    layers = [
        part
        for a, b in pairwise(widths)
        for part in (nn.Linear(a, b, bias=bias), nn.BatchNorm1d(b))
    ]
    row = shaken(nn.Sequential(*layers), seed)
    x = images(1, widths[0], seed)[:, 0, 0]
    W, b = reduce(
        merge,
        [
            scaled(affine(layer), *normalisation(norm))
            for layer, norm in zip(row[::2], row[1::2], strict=True)
        ],
    )
    equal(x @ W.T + b, row(x))


@quick
@given(
    st.sampled_from(sorted(BLOCKS)),
    st.integers(2, 6),
    st.integers(1, 2),
    st.integers(5, 9),
    st.data(),
    SEEDS,
)
def test_a_block_with_any_segment_merged_equals_the_block_that_was_cut(
    name, width, stride, size, data, seed
):
    block = shaken(BLOCKS[name](width, stride), seed)
    assert mergeable(block)
    spelled = chain(block)
    chosen = data.draw(st.sampled_from(list(candidates(spelled))))
    event(f"{name}: {chosen.end - chosen.start} layers, {len(chosen.kept)} kept")
    parts = [Segment(i, i + 1, (i,)) for i in range(len(spelled.layers))]
    parts[chosen.start : chosen.end] = [chosen]
    cut = cut_up(spelled, parts)
    x = images(width, size, seed)
    one = merged(copy.deepcopy(cut))
    equal(one(x), cut(x))
    assert sum(isinstance(part, nn.Conv2d) for part in one.modules()) <= len(parts) + (
        name in ("basic", "bottleneck")
    )


@quick
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from(["zeros", "reflect"]),
)
def test_only_square_odd_undilated_zero_padded_convolutions_that_keep_the_size_are_taken_for_same(
    high, wide, above, left, dilation, mode
):
    conv = nn.Conv2d(1, 1, (high, wide), 1, (above, left), dilation, padding_mode=mode)
    square = high == wide and above == left and mode == "zeros" and dilation == 1
    assert same(conv) == (square and conv(torch.zeros(1, 1, 9, 9)).shape == (1, 1, 9, 9))
