import copy

import pytest
import torch
from torch import nn

from methods.evopress_drop import EvoPressDrop
from methods.parts.depth.drop import units
from methods.parts.quantization.levels import logits
from methods.parts.training.losses import soft_loss


def dropped(model, names):
    return [name for name in names if isinstance(model.get_submodule(name), nn.Identity)]


def test_a_block_that_adds_nothing_is_the_one_to_go_and_the_logits_stay(make_model, make_data):
    model, data = make_model("vit"), make_data("vit")
    for part in (model.blocks[2].attn.proj, model.blocks[2].mlp.fc2):
        nn.init.zeros_(part.weight), nn.init.zeros_(part.bias)
    found = EvoPressDrop("block", 1).compress(copy.deepcopy(model), data)
    assert dropped(found, [f"blocks.{i}" for i in range(6)]) == ["blocks.2"]
    assert torch.equal(found(data.calibration), model(data.calibration))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_six_blocks_it_finds_the_one_whose_loss_is_least(make_model, make_data, seed):
    model, data = make_model("vit"), make_data("vit", seed)
    for block, strength in zip(model.blocks, [4.0, 1.0, 8.0, 2.0, 6.0, 3.0], strict=True):
        block.mlp.fc2.weight.data.mul_(strength)
    images = data.calibration
    dense, losses = logits(model, images), []
    for i in range(6):
        without = copy.deepcopy(model)
        without.blocks[i] = nn.Identity()
        losses.append(float(soft_loss(logits(without, images), dense, 1.0)))
    found = EvoPressDrop("block", 1).compress(model, data)
    assert dropped(found, [f"blocks.{i}" for i in range(6)]) == [
        f"blocks.{losses.index(min(losses))}"
    ]


@pytest.mark.parametrize(
    ("name", "unit", "count"),
    [
        ("vit", "joint", 5),
        ("mixer", "attention", 2),
        ("resnet", "block", 5),
        ("mobilenet", "block", 1),
    ],
)
def test_as_many_units_as_asked_for_are_gone(make_model, make_data, name, unit, count):
    model, method = make_model(name), EvoPressDrop(unit, count)
    names = units(model, unit)
    assert len(dropped(method.compress(model, make_data(name)), names)) == count


def test_more_units_than_there_are_and_sublayers_of_a_cnn_are_skipped(make_model):
    assert "only 5" in EvoPressDrop("block", 6).skip(make_model("resnet"))
    assert "drop 'block'" in EvoPressDrop("mlp", 1).skip(make_model("resnet"))
    assert EvoPressDrop("joint", 12).skip(make_model("vit")) is None
