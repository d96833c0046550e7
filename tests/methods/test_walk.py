"""Each stage's inputs are what its module gets in the model as it is by then, and no
block is run again for each that follows it.
"""

import pytest
import torch
from timm.models.resnet import BasicBlock
from torch import nn

from methods.parts.network.layers import prunable
from methods.parts.network.walk import stages


def inputs_of(model, module, images):
    """Run the whole model and look at what `module` gets."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0].clone()))
    with torch.no_grad():
        model(images)
    handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_inputs_come_from_the_stages_before_as_they_were_left(make_model, track_data, name):
    model, images = make_model(name), track_data.calibration[:20]
    seen = []
    for stage in stages(model, prunable(model), images):
        torch.testing.assert_close(stage.inputs, inputs_of(model, stage.module, images))
        for key, layer in stage.layers.items():
            assert model.get_submodule(key) is layer
            layer.weight.data *= 0.5
        seen += stage.layers
    assert sorted(seen) == sorted(prunable(model))


def test_layers_asked_for_alone_get_their_inputs_through_the_blocks_between(make_model, track_data):
    model, images = make_model("resnet"), track_data.calibration[:20]
    layers = {
        name: layer
        for name, layer in prunable(model).items()
        if name.startswith(("layer1.0", "layer3.1"))
    }
    for stage in stages(model, layers, images):
        torch.testing.assert_close(stage.inputs, inputs_of(model, stage.module, images))
        for layer in stage.layers.values():
            layer.weight.data *= 0.5


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_the_first_block_is_run_no_more_often_in_a_deep_model(make_model, track_data, name):
    model, images = make_model(name), track_data.calibration[:20]
    first = next(stages(model, prunable(model), images)).module
    calls = []
    first.register_forward_hook(lambda *_: calls.append(1))
    for _ in stages(model, prunable(model), images):
        pass
    # to find the order, to find who feeds whom, and to make the second block's inputs
    assert len(calls) == 3


def test_what_is_changed_in_place_between_two_layers_is_not_taken_for_the_first_one_s_output():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    layers, images = {"0": model[0], "2": model[2]}, torch.randn(8, 4)
    *_, last = stages(model, layers, images)
    assert (last.inputs >= 0).all()
    torch.testing.assert_close(last.inputs, inputs_of(model, model[2], images))


def test_a_replaced_layer_counts(make_model, track_data):
    model, images = make_model("vit"), track_data.calibration[:20]
    walk = stages(model, prunable(model), images)
    next(walk)
    model.blocks[0].mlp = nn.Identity()
    torch.testing.assert_close(next(walk).inputs, inputs_of(model, model.blocks[1], images))


class TwoInputs(BasicBlock):
    def forward(self, x, y):
        return super().forward(x) + y


class Fork(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = TwoInputs(3, 3)

    def forward(self, x):
        return self.block(x, x)


def test_a_block_with_two_inputs_is_refused():
    model = Fork().eval()
    with pytest.raises(ValueError, match="more than one tensor"):
        next(stages(model, {"block.conv1": model.block.conv1}, torch.randn(2, 3, 8, 8)))
