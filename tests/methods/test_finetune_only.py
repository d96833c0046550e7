"""The budget, its limiting case, and what it is for."""

import copy

import pytest
import torch

from harness.run import registry


@pytest.mark.parametrize(("share", "epochs"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_the_share_of_the_budget_is_what_is_drawn(make_model, make_data, share, epochs):
    seen = make_data("resnet", epochs=4)
    registry.configure("finetune_only", {"share": share}).compress(make_model("resnet"), seen)
    assert seen.images_seen == epochs * (1077 // 64) * 64


def test_no_share_is_dense(make_model, make_data):
    model = make_model("mixer")
    before = copy.deepcopy(model.state_dict())
    after = (
        registry.configure("finetune_only", {"share": 0.0})
        .compress(model, make_data("mixer"))
        .state_dict()
    )
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_training_on_improves_an_untrained_model_but_makes_it_no_cheaper(
    make_model, make_data, track_data
):
    model, seen = make_model("resnet"), make_data("resnet", epochs=4)
    cost = seen.macs(model)

    def accuracy():
        with torch.no_grad():
            return float(
                (model(track_data.validation.images).argmax(1) == track_data.validation.labels)
                .float()
                .mean()
            )

    before = accuracy()
    registry.configure("finetune_only", {}).compress(model, seen)
    assert accuracy() > before + 0.2 and seen.macs(model) == cost
