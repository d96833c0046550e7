"""Hinton's loss on the logits that a student is trained on, its limiting case, and what
the teacher is worth.
"""

import copy
from math import log

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from harness.run import registry
from methods import Schedule
from methods.distill import Distill, lesson
from methods.parts.training.losses import soft_loss
from methods.slim import Slim


class Always(nn.Module):
    """A model with the same logits for any input."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits * 1


def test_the_soft_loss_of_the_example_is_worked_out_by_hand():
    # p_t = (3/4, 1/4), p_s = (1/2, 1/2)
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    assert soft_loss(student, teacher, 1.0).item() == pytest.approx(
        0.75 * log(1.5) + 0.25 * log(0.5), abs=1e-6
    )
    assert soft_loss(student, teacher, 1.0).item() == pytest.approx(0.1308, abs=5e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
def test_the_gradient_on_the_student_s_logits_is_hinton_s(alpha):
    T, labels = 4.0, torch.tensor([0, 2])
    student, teacher = (
        Always([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]]),
        Always([[4.0, -1.0, 0.0], [2.0, 0.5, -3.0]]),
    )
    student.register_forward_hook(lesson(teacher, T, alpha))
    cross_entropy(student(torch.zeros(2, 1)), labels).backward()
    z_s, z_t, y = student.logits.detach(), teacher.logits.detach(), nn.functional.one_hot(labels, 3)
    expected = (
        (1 - alpha) * (z_s.softmax(1) - y)
        + alpha * T * ((z_s / T).softmax(1) - (z_t / T).softmax(1))
    ) / 2
    torch.testing.assert_close(student.logits.grad, expected)
    assert teacher.logits.grad is None


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_without_soft_targets_the_student_is_slim_bit_for_bit_and_with_them_it_is_not(
    make_model, make_data, name
):
    def trained(method):
        torch.manual_seed(0)
        return method.compress(make_model(name), make_data(name)).state_dict()

    slim, alone, taught = (
        trained(Slim(0.1)),
        trained(Distill(0.1, alpha=0.0)),
        trained(Distill(0.1)),
    )
    assert (
        all(torch.equal(alone[key], tensor) for key, tensor in slim.items())
        and slim.keys() == alone.keys()
    )
    assert not all(torch.equal(taught[key], tensor) for key, tensor in slim.items())


def test_the_student_meets_the_budget_holds_no_teacher_and_leaves_the_teacher_as_it_was(
    make_model, make_data
):
    seen, dense = make_data("mixer"), make_model("mixer")
    before = copy.deepcopy(dense.state_dict())
    student = registry.configure("distill", {"macs": 0.25}).compress(dense, seen)
    assert 0.2 * seen.macs(dense) < seen.macs(student) <= 0.25 * seen.macs(dense)
    assert seen.images_seen == seen.steps(seen.scratch) * seen.scratch.batch
    assert not student._forward_hooks and not student.training and not dense.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in dense.state_dict().items())


class Drawn:
    """A task whose labels are drawn, once, from what the teacher thinks of few
    images.
    """

    scratch = Schedule("adamw", "fp32", 60, 16, 0.01, 0.0, 0.3, 0.0)

    def __init__(self, teacher, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.images = torch.randn(64, 16, 1, 1, generator=self.generator)
        self.labels = torch.multinomial(
            teacher(self.images).softmax(1), 1, generator=self.generator
        )[:, 0]

    def steps(self, schedule):
        return schedule.epochs * 4

    def batches(self, schedule):
        for _ in range(schedule.epochs):
            for chosen in torch.randperm(64, generator=self.generator).split(schedule.batch):
                yield self.images[chosen], self.labels[chosen]

    def macs(self, model):
        return sum(p.numel() for p in model.parameters())

    def narrower(self, width):
        return perceptron(max(1, round(64 * width)))


def perceptron(units):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, units), nn.ReLU(), nn.Linear(units, 5))


def test_a_student_agrees_more_with_dense_on_new_images_than_one_that_only_saw_labels():
    torch.manual_seed(0)
    teacher = perceptron(64).eval()
    teacher[3].weight.data *= 4
    new = torch.randn(2000, 16, 1, 1)
    agreement = {0.0: 0.0, 0.9: 0.0}
    for seed in range(2):
        for alpha in agreement:
            torch.manual_seed(seed)
            with torch.no_grad():
                data = Drawn(teacher, seed)
            student = Distill(0.25, alpha=alpha).compress(teacher, data)
            agreement[alpha] += (
                student(new).argmax(1) == teacher(new).argmax(1)
            ).float().mean().item() / 2
    assert agreement[0.9] > agreement[0.0] + 0.1
