import copy

import pytest
import torch
from torch import nn

from methods.lapp import LAPP, Bypassed, Gated, convolutions, gates, penalty, scores, survivors


def gated(conv, mask=None):
    layer = Gated(conv, 0.25, torch.Generator().manual_seed(0)).eval()
    if mask is not None:
        layer.mask.copy_(torch.tensor(mask))
        layer.frozen.fill_(True)
    return layer


def test_the_filters_give_its_mask_and_half_of_the_macs():
    q, t = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor(0.25, requires_grad=True)
    m = gates(q, t, 0.05)
    assert m.tolist() == [0, 0, 1, 1] and m.sum() / len(m) == 0.5
    s = torch.sigmoid((q - 0.25) / 0.05)
    m.sum().backward()
    torch.testing.assert_close(t.grad, -(s * (1 - s)).sum() / 0.05)


def test_scores_are_mean_magnitudes_over_their_mean_whatever_the_scale():
    W = torch.tensor([1.0, -2.0, 3.0]).view(3, 1, 1, 1) * torch.ones(3, 2, 3, 3)
    torch.testing.assert_close(scores(W), torch.tensor([0.5, 1.0, 1.5]))
    torch.testing.assert_close(scores(7 * W), scores(W))


def test_the_constraint_raises_thresholds_above_the_budget_and_leaves_them_alone_below():
    q, t = (
        torch.rand(8, generator=torch.Generator().manual_seed(0)),
        torch.tensor(0.2, requires_grad=True),
    )
    F = gates(q, t, 0.25).sum() / 8
    r = F.item()
    (above,) = torch.autograd.grad(penalty(F, r - 0.1), t, retain_graph=True)
    (below,) = torch.autograd.grad(penalty(F, r + 0.01), t)
    assert above < 0 and below == 0
    assert penalty(torch.tensor(0.75), 0.5) == 0.25


def test_one_offset_meets_the_budget_and_smaller_filters_fill_the_rest():
    # filters of 10 and of 3 MACs: 29 in all
    margins = [torch.tensor([0.1, 0.5]), torch.tensor([0.4, 0.2, 0.3])]
    kept = survivors(margins, [10, 3], 29, 17)
    # 29 - 10 - 3 = 16
    assert [mask.tolist() for mask in kept] == [[False, True], [True, False, True]]
    kept = survivors([torch.tensor([0.3, 0.5]), torch.tensor([0.4, 0.1, 0.2])], [10, 3], 29, 22)
    # without the three lowest 13, of which both small ones fit back in
    assert [mask.tolist() for mask in kept] == [
        [False, True],
        [True, True, True],
    ]


@pytest.mark.parametrize("mask", [[1.0, 0, 0, 1, 1, 0, 1, 0], [0.0] * 8, [1.0] * 8])
@pytest.mark.parametrize(("inputs", "k", "stride"), [(8, 3, 2), (12, 3, 1), (4, 1, 1), (3, 3, 1)])
def test_the_small_layer_computes_what_the_masked_one_does(mask, inputs, k, stride):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(inputs, 8, k, stride, k // 2, bias=False), torch.randn(2, inputs, 6, 6)
    layer = gated(conv, mask)
    small = layer.small()
    with torch.no_grad():
        torch.testing.assert_close(small(x), layer(x), rtol=1e-5, atol=1e-5)
    assert isinstance(small, Bypassed) == (sum(mask) > 0)
    filters = [module.out_channels for module in small.modules() if isinstance(module, nn.Conv2d)]
    assert sum(filters) == 8 + sum(mask)


def test_all_filters_kept_the_gated_layer_is_the_convolution_plus_its_bypass():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(6, 9, 3, padding=1, bias=False), torch.randn(2, 6, 5, 5)
    layer = gated(conv)
    with torch.no_grad():
        torch.testing.assert_close(
            layer(x),
            conv(x) + nn.functional.conv2d(x, layer.bypass.weight, padding=1, groups=3),
            rtol=1e-5,
            atol=1e-5,
        )


def test_the_loss_moves_the_threshold_while_it_learns_and_frozen_masks_no_more():
    torch.manual_seed(0)
    layer, x = gated(nn.Conv2d(4, 8, 3, bias=False)), torch.randn(2, 4, 6, 6)
    layer.t.fill_(1.0)
    layer(x).square().sum().backward()
    assert layer.slope < 0  # fewer filters, smaller outputs: a larger threshold lowers this loss
    layer.frozen.fill_(True)
    layer(x).square().sum().backward()
    assert layer.slope == 0
    assert not {"t", "slope"} & dict(layer.named_parameters()).keys()


@pytest.mark.parametrize(("name", "macs"), [("resnet", 0.5), ("mobilenet", 0.3)])
def test_the_budget_is_met_from_below_to_half_a_percent_bypasses_included(
    make_model, make_data, name, macs
):
    model, data = make_model(name), make_data(name)
    small = LAPP(macs=macs).compress(copy.deepcopy(model), data)
    assert 0.995 * macs < data.macs(small) / data.macs(model) <= macs
    assert data.images_seen == data.steps(data.scratch) * data.scratch.batch


def test_layers_are_pruned_at_rates_of_their_own(make_model, make_data):
    model, data = make_model("resnet"), make_data("resnet")
    small = LAPP(macs=0.5, phase=1.0).compress(copy.deepcopy(model), data)
    widths = {name: conv.out_channels for name, conv in convolutions(model).items()}
    kept = {name: getattr(small.get_submodule(name), "kept", None) for name in widths}
    shares = {
        sum(m.out_channels for m in kept[name].modules() if isinstance(m, nn.Conv2d)) / widths[name]
        if kept[name]
        else 0.0
        for name in widths
    }
    assert len(shares) > 3


def test_a_budget_below_the_bypasses_is_refused_in_one_line(make_model, make_data):
    with pytest.raises(
        ValueError, match=r"macs 0.05 is out of reach: .* 0.\d+ of dense; ask for more"
    ):
        LAPP(macs=0.05).compress(make_model("resnet"), make_data("resnet"))


def test_a_transformer_is_skipped_with_a_reason(make_model):
    assert LAPP().skip(make_model("vit")) == "no convolution inside a residual block"
    assert LAPP().skip(make_model("resnet")) is None
    assert {name.split(".")[-1] for name in convolutions(make_model("mobilenet"))} == {
        "conv_pw",
        "conv_pwl",
    }
