import copy

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from timm.layers import SEModule
from timm.models._efficientnet_blocks import InvertedResidual
from timm.models.resnet import BasicBlock
from torch import nn
from torch.nn import functional

from methods import Split
from methods.lrp_pruning import LRPPruning, convolution, explained, reference, relevance, scores
from methods.parts.pruning.channels import groups, prune_to_macs
from methods.parts.pruning.ranking import global_order


def labelled(data, count=40):
    split = data.train
    return Split(split.images[:count], split.labels[:count])


def test_the_pair_gets_one_and_a_half_and_a_half_of_the_relevance():
    conv = nn.Conv2d(2, 2, 1)
    conv.weight.data, conv.bias.data = (
        torch.tensor([[1.0, -1.0], [2.0, 2.0]]).view(2, 2, 1, 1),
        torch.tensor([3.0, -1.0]),
    )
    x = torch.ones(1, 2, 1, 1, requires_grad=True)
    y = convolution(conv, (x,), conv(x))
    torch.testing.assert_close(y, conv(x))
    y.backward(1 / y.detach())  # relevance 1 at both outputs; the rule ignores the biases
    torch.testing.assert_close((x * x.grad).flatten(), torch.tensor([1.5, 0.5]))


def test_negative_inputs_share_through_negative_weights():
    conv = nn.Conv2d(2, 1, 1, bias=False)
    conv.weight.data = torch.tensor([2.0, -3.0]).view(1, 2, 1, 1)
    x = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).requires_grad_()
    y = convolution(conv, (x,), conv(x))
    y.backward(8 / y.detach())
    torch.testing.assert_close((x * x.grad).flatten(), torch.tensor([2.0, 6.0]))


def test_without_biases_the_relevance_of_a_sample_is_one_at_every_layer():
    torch.manual_seed(0)
    body = [
        nn.Conv2d(1, 16, 3, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.ReLU6(inplace=True),
        nn.MaxPool2d(2),
    ]
    body += [
        BasicBlock(16, 16),
        InvertedResidual(16, 16, exp_ratio=4, act_layer=nn.ReLU6),
        nn.AvgPool2d(2),
    ]
    model = nn.Sequential(*body, nn.Flatten(), nn.Linear(144, 10, bias=False)).eval().double()
    # so that ReLU6 saturates
    images, sums = 9 * torch.randn(20, 1, 16, 16, dtype=torch.float64), []
    ready = explained(model, images[:1])

    def before(_module, args):
        a = args[0].detach()
        args[0].register_hook(lambda c: sums.append((a * c).flatten(1).sum(1)))

    for layer in ready:
        layer.register_forward_pre_hook(before)
    logits = ready(images.clone().requires_grad_())
    torch.testing.assert_close(logits, model(images))
    logits.backward(functional.one_hot(torch.arange(20) % 10) / logits.detach())
    assert len(sums) == len(model)
    torch.testing.assert_close(
        torch.stack(sums), torch.ones(len(sums), 20, dtype=torch.float64), rtol=0, atol=1e-4
    )


def test_scores_equal_the_rules_written_out_with_matrices():
    generator = torch.Generator().manual_seed(0)
    block = BasicBlock(3, 3).eval()
    for conv in (block.conv1, block.conv2):  # on one pixel a 3x3 kernel is the matrix of its centre
        conv.weight.data = torch.zeros(3, 3, 3, 3)
        conv.weight.data[:, :, 1, 1] = torch.randn(3, 3, generator=generator)
    model = nn.Sequential(block, nn.Flatten(), nn.Linear(3, 4)).eval()
    x, labels = torch.rand(5, 3, generator=generator), torch.tensor([0, 1, 2, 3, 0])
    V, W, U = (
        block.conv1.weight[:, :, 1, 1].detach(),
        block.conv2.weight[:, :, 1, 1].detach(),
        model[2].weight.detach(),
    )
    scale = (1 + 1e-5) ** -0.5  # of a fresh batch norm
    expected = torch.zeros(3)
    for a, label in zip(x, labels.tolist(), strict=True):
        h = (scale * V @ a).relu()
        y = scale * W @ h
        out = (y + a).relu()
        # the epsilon rule counts the bias in z
        R_out = out * U[label] / (U[label] @ out + model[2].bias[label].detach())
        R_y = R_out * y / (y + a)
        shares = W.clamp(min=0) * h
        expected += (
            (shares / shares.sum(1, keepdim=True).clamp(min=1e-12) * R_y[:, None]).sum(0).abs()
        )
    (found,) = scores(model, Split(x[:, :, None, None], labels))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_filter_that_nobody_reads_scores_zero_and_goes_first(make_model, make_data):
    model = make_model("resnet")
    model.layer3[0].conv2.weight.data[:, 7] = 0
    found = scores(model, labelled(make_data("resnet")))
    names = [group.name for group in groups(model)]
    first = names.index("layer3.0.conv1")
    assert [unit for unit, score in enumerate(found[first].tolist()) if score == 0] == [7]
    assert (first, 7) in global_order(found)[: sum(int((score == 0).sum()) for score in found)]


def test_in_a_vit_the_score_is_input_times_gradient_of_the_logit_over_the_logit(
    make_model, make_data
):
    model, split = make_model("vit"), labelled(make_data("vit"), 8)
    found, seen = scores(model, split), []
    attention = model.blocks[2].attn.proj.register_forward_pre_hook(
        lambda _module, args: seen.append(args[0])
    )
    hidden = model.blocks[2].mlp.fc2.register_forward_pre_hook(
        lambda _module, args: seen.append(args[0])
    )
    logits = model(split.images)[range(8), split.labels]
    attention.remove(), hidden.remove()
    parts = [
        a * c
        for a, c in zip(
            seen, torch.autograd.grad((logits / logits.detach()).sum(), seen), strict=True
        )
    ]
    names = [group.name for group in groups(model)]
    torch.testing.assert_close(
        found[names.index("blocks.2.attn.qkv")],
        parts[0].abs().sum((0, 1)).view(3, 16).sum(1).detach(),
        rtol=1e-3,
        atol=1e-5,
    )
    torch.testing.assert_close(
        found[names.index("blocks.2.mlp.fc1")],
        parts[1].abs().sum((0, 1)).detach(),
        rtol=1e-3,
        atol=1e-5,
    )


def test_an_expansion_channel_counts_at_its_point_and_its_depth_wise_convolution(
    make_model, make_data
):
    model, split = make_model("mobilenet"), labelled(make_data("mobilenet"))
    R = relevance(model, ["blocks.1.0.conv_dw", "blocks.1.0.conv_pwl"], split)
    torch.testing.assert_close(
        scores(model, split)[0], R["blocks.1.0.conv_dw"] + R["blocks.1.0.conv_pwl"]
    )


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_removing_irrelevant_units_changes_the_logits_less_than_removing_relevant_ones(
    make_model, make_data, name
):
    model, data = make_model(name), make_data(name)
    split = labelled(data)
    found = scores(model, split)

    @torch.no_grad()
    def change(sign):
        pruned = copy.deepcopy(model)
        prune_to_macs(pruned, global_order([sign * score for score in found]), 0.9, data)
        return (pruned(split.images) - model(split.images)).norm()

    assert change(1) < 0.7 * change(-1)


def test_the_reference_holds_so_many_samples_of_each_class_and_another_seed_draws_others(make_data):
    draws = [
        reference(
            make_data("resnet", seed).train, 3, make_data("resnet", seed).generator("reference")
        )
        for seed in (0, 0, 1)
    ]
    assert draws[0].labels.bincount().tolist() == [3] * 10
    assert torch.equal(draws[0].images, draws[1].images) and not torch.equal(
        draws[0].images, draws[2].images
    )


@pytest.mark.parametrize(("name", "seen"), [("resnet", 64), ("mixer", 0)])
def test_a_model_is_pruned_to_its_budget_and_never_trained(make_model, make_data, name, seen):
    model, data = make_model(name), make_data(name)
    compressed = LRPPruning(macs=0.8, step=0.1).compress(copy.deepcopy(model), data)
    assert 0.785 < data.macs(compressed) / data.macs(model) <= 0.8
    assert data.images_seen == len(make_data(name).train.labels) + seen
    kept, before = compressed.state_dict(), model.state_dict()
    untouched = [
        key
        for key in before
        if key.startswith(("fc.", "head.", "layer4.1.bn2.weight", "blocks.5.mlp_tokens.fc2.bias"))
    ]
    assert untouched and all(torch.equal(kept[key], before[key]) for key in untouched)


def test_models_without_a_rule_or_free_channels_are_skipped_with_a_reason(make_model):
    assert LRPPruning().skip(make_model("vit")) is None
    assert "bn_passes=0" in LRPPruning(bn_passes=0).skip(make_model("vit"))
    assert "no free channels" in LRPPruning().skip(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 4))
    )
    assert "squeeze-and-excitation" in LRPPruning().skip(BasicBlock(8, 8, attn_layer=SEModule))


def test_settings_are_checked():
    settings = TypeAdapter(LRPPruning)
    assert settings.validate_python({"macs": 0.5, "step": 0.1}) == LRPPruning(macs=0.5, step=0.1)
    for wrong in ({"macs": 0}, {"step": 0}, {"per_class": 0}, {"fine_tune": 1}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
