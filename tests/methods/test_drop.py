"""Residual units of timm's blocks: what may be left out, and blocks as two units in
series.
"""

import pytest
import torch
from torch import nn

from methods.parts.depth.drop import Residual, Transposed, droppable, halves


def test_a_residual_unit_adds_its_branch_and_a_transposed_one_works_along_the_tokens():
    double = nn.Linear(2, 2, bias=False)
    double.weight.data = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    x = torch.tensor([[[1.0, 10.0], [3.0, 30.0]]])  # two tokens of two channels
    assert Residual(double)(x).tolist() == [[[3.0, 10.0], [9.0, 30.0]]]
    assert Transposed(double)(x).tolist() == [[[2.0, 20.0], [0.0, 0.0]]]


@pytest.mark.parametrize(("name", "shape"), [("vit", (2, 17, 48)), ("mixer", (2, 16, 48))])
def test_dropping_one_half_leaves_the_other(make_model, name, shape):
    block, x = (
        make_model(name).blocks[1],
        torch.randn(shape, generator=torch.Generator().manual_seed(0)),
    )
    parts = halves(block)
    parts.attention = nn.Identity()
    mlp = block.mlp if name == "vit" else block.mlp_channels
    assert torch.equal(parts(x), x + mlp(block.norm2(x)))


@pytest.mark.parametrize(
    ("name", "count"), [("resnet", 5), ("mobilenet", 4), ("vit", 6), ("mixer", 6)]
)
def test_only_blocks_whose_shortcut_is_the_identity_may_be_dropped(make_model, name, count):
    found = [module for module in make_model(name).modules() if droppable(module)]
    assert len(found) == count
    assert not any(getattr(block, "downsample", None) for block in found)
