"""timm's models at other widths: what the one rule finds is what their arguments say,
and where it finds nothing, or the model is another, one line says so.
"""

import pytest
import timm
import torch
from torch import nn

from harness.models import build, widths
from harness.point import counter
from leaderboard.records.errors import UserError

CLASSES = 5
VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 3}
# timm's own models for tests; ConvNeXt, the transformers and two CNNs that round
SMALL = ("test_vit", "test_resnet", "test_convnext", "test_efficientnet", "mobilenetv3_small_050")
# whose class hands arguments on, takes records, takes no widths but their multiplier
ODD = ("levit_128s", "regnetx_002", "resnetv2_18", "ghostnet_050")


def made(name: str, **args) -> nn.Module:
    """Make a timm model of CLASSES classes in eval mode, its norms not all 1 and 0."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=CLASSES, **args)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.data.add_(0.1 * torch.rand_like(tensor))
    return model.eval()


def images_of(model: nn.Module) -> torch.Tensor:
    size = model.pretrained_cfg["input_size"][-1]
    return torch.rand(2, 3, size, size)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}


def count(model: nn.Module) -> int:
    return sum(tensor.numel() for tensor in model.parameters())


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_half_of_a_model_of_the_track_is_what_params_yaml_says_of_it(name, track, make_model):
    family = widths.family(
        track.models[name].timm, make_model(name), torch.rand(2, 1, 16, 16), classes=10
    )
    for width in (1.0, 0.5):
        assert shapes(family(width)) == shapes(build.build(track.models[name], 1, 10, width))


@pytest.mark.parametrize("name", SMALL + ODD)
def test_narrower_ones_tell_the_same_classes_apart_with_fewer_parameters(name):
    model = made(name)
    images = images_of(model)
    family = widths.family(name, model, images, CLASSES)
    assert shapes(family(1.0)) == shapes(model)
    counts = [count(family(width)) / count(model) for width in (0.75, 0.5, 0.25)]
    assert counts[0] < 0.85 and counts[1] < 0.7 and counts[2] < 0.55
    assert counts == sorted(counts, reverse=True)
    narrow = family(0.25)
    assert narrow.training and narrow.eval()(images).shape == (2, CLASSES)


def test_a_width_is_rounded_down_to_what_the_heads_divide():
    family = widths.family(
        "vit_tiny_patch16_224",
        made("vit_tiny_patch16_224", **VIT),
        torch.rand(2, 3, 16, 16),
        CLASSES,
    )
    dims = {width: family(width / 256).embed_dim for width in (1, 100, 128, 250, 255)}
    assert dims == {1: 3, 100: 18, 128: 24, 250: 45, 255: 45}


def test_what_timms_function_of_a_model_changes_afterwards_is_changed_in_narrower_ones(
    track, make_model
):
    small = make_model("resnet")  # resnet_small takes stride and pooling from its stem
    images = torch.rand(2, 1, 16, 16)
    narrow = widths.family("resnet_small", small, images, classes=10)(0.5)
    expected = build.build(track.models["resnet"], 1, 10, 0.5)
    assert counter.count(narrow.eval(), images).macs == counter.count(expected.eval(), images).macs


@pytest.mark.parametrize("noted", [True, False])
def test_size_of_images_and_pooling_are_read_off_where_timm_did_not_note_them(noted):
    model = made("vit_tiny_patch16_224", img_size=32, global_pool="avg")
    if not noted:
        del model._model_args
    family = widths.family("vit_tiny_patch16_224", model, torch.rand(2, 3, 32, 32), CLASSES)
    assert shapes(family(1.0)) == shapes(model) and count(family(0.5)) < 0.3 * count(model)


def test_the_class_is_left_as_it_is():
    model = made("test_resnet")
    before = vars(type(model))["__init__"]
    widths.family("test_resnet", model, images_of(model), CLASSES)(0.5)
    assert vars(type(model))["__init__"] is before
    assert shapes(made("test_resnet")) == shapes(model)


def test_names_of_widths_are_told_from_those_of_other_numbers():
    told = "embed_dim embed_dims dims channels widths stem_chs num_features hidden_sizes"
    assert all(map(widths.is_width, told.split()))
    others = (
        "num_heads head_dim base_width mlp_ratio in_chans num_classes img_size patch_size depth"
    )
    assert not any(map(widths.is_width, others.split()))
    assert widths.is_multiplier("width_factor") and not widths.is_width("width_factor")


def test_a_model_that_no_argument_makes_narrower_is_built_at_width_1_alone():
    model = made("hgnetv2_b0")  # the channels of its stages stand in lists without names
    family = widths.family("hgnetv2_b0", model, torch.rand(2, 3, 64, 64), CLASSES)
    assert shapes(family(1.0)) == shapes(model)
    with pytest.raises(UserError, match=r"'hgnetv2_b0' make it one of width 0.9: give fresh="):
        family(0.9)


def changed_activation(model: nn.Module) -> None:
    model.blocks[0].mlp.act = nn.ReLU()


def changed_layer(model: nn.Module) -> None:
    model.blocks[0].mlp.fc1 = nn.Linear(48, 96)


def added_layer(model: nn.Module) -> None:
    model.head = nn.Sequential(model.head, nn.Linear(CLASSES, CLASSES))


def notes_lost(model: nn.Module) -> None:
    del model._model_args


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_activation, "with the same weights timm's returns other logits"),
        (changed_layer, "parameter blocks.0.mlp.fc1.weight is (96, 48) here and (192, 48) in timm"),
        (added_layer, "parameter head.0.weight is (5, 48) here and missing in timm's"),
        (notes_lost, "parameter cls_token is (1, 1, 48) here and (1, 1, 192) in timm's"),
    ],
)
def test_a_model_that_timms_name_does_not_make_is_one_line(change, said):
    model = made("vit_tiny_patch16_224", **VIT)
    change(model)
    with pytest.raises(UserError) as raised:
        widths.family("vit_tiny_patch16_224", model, torch.rand(2, 3, 16, 16), CLASSES)
    text = str(raised.value)
    assert said in text and "'vit_tiny_patch16_224'" in text and "give fresh=" in text
    assert "\n" not in text


def test_a_name_that_timm_does_not_know_is_one_line_and_fetches_nothing():
    model = made("test_resnet")
    for name in ("resnett18", "hf-hub:timm/resnet18.a1_in1k"):
        with pytest.raises(UserError, match=f"timm has no model '{name}': give fresh="):
            widths.family(name, model, images_of(model), CLASSES)


def test_timms_models_carry_their_name_and_others_none():
    assert widths.origin(made("test_resnet")) == "test_resnet"
    assert widths.origin(timm.create_model("resnet10t.c3_in1k")) == "resnet10t"
    assert widths.origin(nn.Linear(2, 2)) is None
