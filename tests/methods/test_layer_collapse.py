import copy

import pytest
import timm
import torch
from pydantic import TypeAdapter, ValidationError
from timm.layers import Mlp
from torch import nn

from methods.layer_collapse import (
    LayerCollapse,
    collapse,
    collapse_if_linear,
    pairs_of,
    pull,
    stages,
    worthwhile,
)


def sloped(mlp, a):
    mlp.act = nn.PReLU(1, init=a).to(mlp.fc1.weight.dtype)
    return mlp.eval()


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("norm", [None, nn.BatchNorm1d])
@pytest.mark.parametrize("bias", [True, False])
def test_at_slope_one_collapsing_is_exact(norm, bias):
    mlp = sloped(Mlp(5, 12, 4, norm_layer=norm, bias=bias, drop=0.5).double(), 1.0)
    if norm:
        (
            mlp.norm.running_mean.normal_(),
            mlp.norm.running_var.uniform_(0.5, 2),
            mlp.norm.weight.data.normal_(),
            mlp.norm.bias.data.normal_(),
        )
    x = torch.randn(9, 5).double()
    before = mlp(x)
    collapse(mlp)
    torch.testing.assert_close(mlp(x), before, rtol=0, atol=1e-10)
    assert parameters(mlp) == 5 * 4 + 4


def test_the_scalar_pair_collapses_to_six_x_plus_eight():
    mlp = sloped(Mlp(1, 1, 1), 0.5)
    for layer, weight, bias in ((mlp.fc1, 2, 1), (mlp.fc2, 3, 5)):
        layer.weight.data.fill_(weight), layer.bias.data.fill_(bias)
    # z = -1: before 3 * (-0.5) + 5, after -6 + 8, difference (1 - a) * 3 * relu(-z)
    x = torch.tensor([[-1.0]])
    assert mlp(x).item() == 3.5
    collapse(mlp)
    assert (mlp.fc1.weight.item(), mlp.fc1.bias.item(), mlp(x).item()) == (6.0, 8.0, 2.0)


def test_the_error_of_collapsing_early_is_the_negative_part_times_one_minus_a():
    mlp = sloped(Mlp(5, 12, 4).double(), 0.9)
    x = torch.randn(9, 5).double()
    before, error = mlp(x), (1 - 0.9) * (-mlp.fc1(x)).relu() @ mlp.fc2.weight.T
    collapse(mlp)
    # the slope is float32 at heart
    torch.testing.assert_close(before - mlp(x), error, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "pairs", "before", "after"),
    [
        ("vit_base_patch16_224", 1, 86_567_656, 82_435_816),
        ("mixer_b16_224", 4, 59_880_472, 51_391_800),
    ],
)
def test_parameter_counts_are_those_that_the_authors_print(name, pairs, before, after):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert parameters(model) == before
    for mlp in pairs_of(model)[:pairs]:
        collapse(mlp)
    assert parameters(model) == after


def test_one_decoupled_step_moves_the_slope_by_the_worked_amount():
    a = torch.zeros(1)
    pull(a, rate=1e-4, gp=10)
    torch.testing.assert_close(a.item(), 0.002)


def test_a_pair_beyond_the_threshold_is_kept_and_one_within_is_collapsed():
    far, near = sloped(Mlp(4, 8), 0.94), sloped(Mlp(4, 8), 0.96)
    weight = far.fc1.weight
    for mlp in (far, near):
        collapse_if_linear(mlp, 0.05)
    assert far.fc1.weight is weight and isinstance(far.act, nn.PReLU)
    assert isinstance(near.fc2, nn.Identity)


def test_a_narrow_pair_is_refused_because_collapsing_would_cost_parameters():
    assert not worthwhile(Mlp(16, 4))
    assert worthwhile(Mlp(16, 8)) and not worthwhile(Mlp(16, 7))  # 8 * 33 = 264 > 256 > 231
    assert pairs_of(nn.Sequential(Mlp(16, 4))) == []
    assert (
        LayerCollapse().skip(nn.Sequential(Mlp(16, 4)))
        == "no Linear - activation - Linear pair that collapsing makes smaller"
    )


def test_the_training_budget_is_split_evenly_over_the_stages():
    assert stages(1, 8) == [(1, 8)]
    assert stages(3, 8) == [(1, 3), (1, 3), (1, 2)]
    assert stages(3, 2) == [(2, 1), (1, 1)]


def test_pairs_go_deepest_first(make_model):
    model = make_model("mixer")
    assert pairs_of(model)[0] is model.blocks[5].mlp_channels
    assert pairs_of(model)[1] is model.blocks[5].mlp_tokens


@pytest.mark.parametrize(("name", "pairs"), [("vit", 2), ("mixer", 3)])
def test_the_decay_drives_slopes_to_one_in_a_single_epoch_and_the_pairs_collapse(
    make_model, make_data, name, pairs
):
    model, data = make_model(name), make_data(name)
    compressed = LayerCollapse(pairs=pairs).compress(copy.deepcopy(model), data)
    assert len(pairs_of(compressed)) == len(pairs_of(model)) - pairs
    assert data.macs(compressed) < data.macs(model)
    assert data.images_seen == data.steps(data.fine_tune) * data.fine_tune.batch
    assert not any(isinstance(module, nn.PReLU) for module in compressed.modules())


def test_collapsing_costs_far_less_after_the_decay_than_without(make_model, make_data):
    images = make_data("vit").calibration

    def jump(strength):
        model = make_model("vit")
        mlp = pairs_of(model)[0]
        LayerCollapse(strength=strength).linearise(model, [mlp], make_data("vit"), 1)
        before = model(images)
        collapse(mlp)
        return (model(images) - before).norm()

    assert jump(250.0) < 0.1 * jump(0.0)


def test_without_decay_the_pair_is_kept(make_model, make_data):
    compressed = LayerCollapse(strength=0.0).compress(make_model("vit"), make_data("vit"))
    assert [isinstance(block.mlp.act, nn.PReLU) for block in compressed.blocks] == [False] * 5 + [
        True
    ]
    assert 0 < abs(compressed.blocks[5].mlp.act.weight.item() - 1) < 1.05


def test_no_pairs_is_dense_and_draws_no_images(make_model, make_data):
    model, data, images = make_model("vit"), make_data("vit"), torch.randn(3, 1, 16, 16)
    compressed = LayerCollapse(pairs=0).compress(copy.deepcopy(model), data)
    assert torch.equal(compressed(images), model(images))
    assert data.images_seen == 0


def test_models_that_it_cannot_collapse_are_skipped_with_a_reason(make_model):
    assert "no Linear - activation - Linear pair" in LayerCollapse().skip(make_model("resnet"))
    assert (
        LayerCollapse(pairs=7).skip(make_model("vit"))
        == "7 pairs asked for, but only 6 can be collapsed"
    )
    assert LayerCollapse(pairs=12).skip(make_model("mixer")) is None


def test_settings_are_checked():
    settings = TypeAdapter(LayerCollapse)
    assert settings.validate_python({"pairs": 3}) == LayerCollapse(pairs=3)
    for wrong in ({"pairs": -1}, {"threshold": 0.0}, {"strength": -1.0}, {"blocks": 1}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)


def test_a_collapsed_model_exports_with_any_batch(make_model, make_data):
    model, images = make_model("mixer"), make_data("mixer").calibration
    for mlp in pairs_of(model):
        collapse(mlp)
    program = torch.export.export(
        model, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.testing.assert_close(program.module()(images[:5]), model(images[:5]))
