"""Exact counts, seeds, and the overlap that chance gives."""

import torch

from harness.run import registry
from methods.parts.network.layers import prunable
from methods.random_pruning import random_mask


def masks(make_model, make_data, seed):
    model = registry.configure("random_pruning", {"sparsity": 0.5, "bn_passes": 0}).compress(
        make_model("resnet"), make_data("resnet", seed)
    )
    return {name: layer.weight == 0 for name, layer in prunable(model).items()}


def test_two_masks_at_one_half_overlap_by_one_half():
    one, two = (
        random_mask(torch.Size([100, 100]), 0.5, torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    )
    assert int(one.sum()) == int(two.sum()) == 5000
    assert abs(float((one == two).float().mean()) - 0.5) < 0.02


def test_every_layer_loses_exactly_its_share_and_nothing_else_is_touched(make_model, make_data):
    before = make_model("resnet").state_dict()
    model = registry.configure("random_pruning", {"sparsity": 0.3, "bn_passes": 0}).compress(
        make_model("resnet"), make_data("resnet")
    )
    layers = prunable(model)
    assert all(
        int((layer.weight == 0).sum()) == round(0.3 * layer.weight.numel())
        for layer in layers.values()
    )
    others = set(before) - {f"{name}.weight" for name in layers}
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in others)


def test_the_same_seed_gives_the_same_mask_and_another_seed_another(make_model, make_data):
    one, same, other = (masks(make_model, make_data, seed) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one) and not all(
        torch.equal(one[name], other[name]) for name in one
    )
