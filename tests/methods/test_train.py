"""The one loop: what it decays, how often it steps, and that it learns."""

import copy
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch

from methods.parts.training import cuda_graph
from methods.parts.training.train import train


def test_no_epochs_change_nothing(make_model, make_data):
    model, seen = make_model("resnet"), make_data("resnet")
    before = copy.deepcopy(model.state_dict())
    train(model, seen, replace(seen.fine_tune, epochs=0))
    assert (
        all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        and seen.images_seen == 0
    )


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
            self.matrix, self.vector = (
                torch.nn.Parameter(torch.ones(3, 3)),
                torch.nn.Parameter(torch.ones(3)),
            )

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
    assert (
        loss() == before
        and (train(model, seen, replace(seen.fine_tune, epochs=4)), loss())[1] < 0.8 * before
    )


def test_sgd_is_nesterov_momentum_by_the_recurrence(make_data):
    class Line(torch.nn.Module):
        """Logits that move one weight by a constant gradient."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1, 1))

        def forward(self, x):
            return torch.zeros(len(x), 10) + 0 * self.weight

    seen, model, rates = make_data("resnet"), Line(), []

    def constant_gradient(rate):
        model.weight.grad.fill_(1.0)
        rates.append(rate)

    train(
        model, seen, replace(seen.fine_tune, optimiser="sgd", weight_decay=0.0), constant_gradient
    )
    wanted, momentum = 0.0, 0.0
    for rate in rates:
        momentum = 0.9 * momentum + 1.0
        wanted -= rate * (1.0 + 0.9 * momentum)
    assert model.weight.item() == pytest.approx(wanted, rel=1e-4) and len(rates) == 16


def test_bf16_is_the_precision_of_the_passes_and_not_of_the_weights(make_model, make_data):
    model, seen, seen_types = make_model("resnet"), make_data("resnet"), set()
    model.fc.register_forward_hook(lambda module, args, output: seen_types.add(output.dtype))
    train(model, seen, replace(seen.fine_tune, precision="bf16"))
    assert seen_types == {torch.bfloat16} and {tensor.dtype for tensor in model.parameters()} == {
        torch.float32
    }
    assert all(torch.isfinite(tensor).all() for tensor in model.parameters())


class FakeGraph:
    """What CUDA does with a graph, as far as Python sees it: capturing runs nothing,
    replaying runs what was captured.
    """

    def replay(self):
        self.captured()


def test_a_captured_step_runs_once_a_call_on_the_images_of_that_call(monkeypatch, make_model):
    model, seen = make_model("resnet").train(), []
    before = copy.deepcopy(dict(model.named_buffers()))

    def step(images, labels):
        if capturing:
            capturing[0].captured = lambda: step_now(images, labels)
        else:
            step_now(images, labels)

    def step_now(images, labels):
        model(images)
        seen.append((images.clone(), labels.clone()))

    capturing = []

    @contextmanager
    def capture(graph):
        capturing.append(graph)
        yield
        capturing.clear()

    monkeypatch.setattr(torch.cuda, "Stream", MagicMock())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", MagicMock())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    graph = cuda_graph._Graph(step, model)
    batches = [(torch.rand(4, 1, 16, 16), torch.full((4,), number)) for number in range(2)]
    for images, labels in batches:
        graph(images, labels)
    assert len(seen) == cuda_graph.WARM + 2
    assert all(
        torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])
        for found, wanted in zip(seen[-2:], batches, strict=True)
    )
    plain = make_model("resnet").train()
    plain.load_state_dict({**plain.state_dict(), **before})
    for images, _ in batches:
        plain(images)
    assert all(
        torch.equal(tensor, dict(plain.named_buffers())[name])
        for name, tensor in model.named_buffers()
    )


def test_on_a_cpu_nothing_is_captured(make_model):
    def step(images, labels):
        raise AssertionError("not called")

    assert cuda_graph.captured(step, make_model("resnet")) is step
