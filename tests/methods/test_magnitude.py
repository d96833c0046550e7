"""A worked example, ties, and torch's own pruning as oracle."""

import torch
from torch.nn.utils import prune

from harness.run import registry
from methods.parts.network.layers import prunable
from methods.parts.pruning.masks import smallest


def test_the_worked_example_zeroes_a_whole_small_layer():
    masks = smallest({"one": torch.tensor([1.0, 2.0]), "two": torch.tensor([10.0, 20.0])}, 0.5)
    assert masks["one"].tolist() == [True, True] and masks["two"].tolist() == [False, False]


def test_ties_lose_exactly_the_asked_number_in_order():
    masks = smallest({"one": torch.ones(2, 2), "two": torch.ones(3)}, 4 / 7)
    assert masks["one"].all() and masks["two"].tolist() == [False, False, False]


def test_masks_equal_those_of_torch_s_global_unstructured_pruning(make_model):
    model, oracle = make_model("mobilenet"), make_model("mobilenet")
    masks = smallest({name: layer.weight for name, layer in prunable(model).items()}, 0.7)
    layers = prunable(oracle)
    prune.global_unstructured(
        [(layer, "weight") for layer in layers.values()], prune.L1Unstructured, amount=0.7
    )
    assert all(torch.equal(masks[name], layer.weight_mask == 0) for name, layer in layers.items())


def test_removing_small_weights_moves_the_logits_less_than_removing_random_ones(
    make_model, make_data, track_data
):
    images = track_data.validation.images[:32]

    def moved(method):
        model = registry.configure(method, {"sparsity": 0.3, "bn_passes": 0}).compress(
            make_model("resnet"), make_data("resnet")
        )
        with torch.no_grad():
            return float((model(images) - make_model("resnet")(images)).norm())

    assert moved("magnitude") < 0.7 * moved("random_pruning")
