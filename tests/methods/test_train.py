"""The one loop: what it decays, how often it steps, and that it learns."""

import copy
from dataclasses import replace

import torch

from methods._train import train


def test_no_epochs_change_nothing(make_model, make_data):
    model, seen = make_model("resnet"), make_data("resnet")
    before = copy.deepcopy(model.state_dict())
    train(model, seen, replace(seen.fine_tune, epochs=0))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items()) and seen.images_seen == 0


def test_rates_warm_up_to_the_given_one_and_fall_to_zero_once_per_batch(make_model, make_data):
    seen, rates = make_data("resnet"), []
    schedule = replace(seen.fine_tune, epochs=3, learning_rate=0.01, warmup=0.2)
    train(make_model("resnet"), seen, schedule, rates.append)
    assert len(rates) == seen.steps(schedule) == 48
    assert max(rates) <= 0.01 and max(rates) > 0.0095 and rates.index(max(rates)) in (8, 9, 10)
    assert rates[0] < 0.001 and rates[-1] < 1e-4


def test_only_tensors_of_two_or_more_dimensions_are_decayed(make_data):
    class Still(torch.nn.Module):
        """Its output ignores the weights, so that only weight decay can move them."""

        def __init__(self):
            super().__init__()
            self.matrix, self.vector = torch.nn.Parameter(torch.ones(3, 3)), torch.nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x.flatten(1)[:, :10] + 0 * (self.matrix.sum() + self.vector.sum())

    seen, model = make_data("resnet"), Still()
    train(model, seen, replace(seen.fine_tune, weight_decay=0.5))
    assert float(model.matrix.detach().max()) < 1 and torch.equal(model.vector.data, torch.ones(3))


def test_four_epochs_lower_the_loss_on_validation(make_model, make_data, track_data):
    model, seen, split = make_model("resnet"), make_data("resnet"), track_data.validation

    def loss():
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(model(split.images), split.labels))

    before = loss()
    assert loss() == before and (train(model, seen, replace(seen.fine_tune, epochs=4)), loss())[1] < 0.8 * before
