"""Losses that ride on the logits: what backward sees of them."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from methods.parts.training.losses import soft_loss, with_loss


def test_backward_differentiates_the_share_of_the_loss_and_the_extra_one():
    w = torch.tensor([[1.0, -2.0]], requires_grad=True)
    with_loss(3 * w, (w**2).sum(), 0.25).sum().backward()
    assert w.grad.tolist() == [[0.25 * 3 + 2 * 1.0, 0.25 * 3 + 2 * -2.0]]


def test_the_logits_themselves_are_unchanged_and_no_share_leaves_the_extra_loss_alone():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    extra = (logits**3).sum()
    found = with_loss(logits, extra, 0.0)
    assert torch.equal(found, logits)
    cross_entropy(found, torch.tensor([0, 1, 2, 0])).backward()
    torch.testing.assert_close(logits.grad, 3 * logits.detach() ** 2)


def test_the_soft_loss_is_zero_for_equal_logits_up_to_a_constant_and_stays_off_the_teacher():
    teacher = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    logits = (teacher.detach() + 5).requires_grad_()
    assert soft_loss(logits, teacher, 4.0).item() == pytest.approx(0, abs=1e-6)
    soft_loss(2 * logits, teacher, 4.0).backward()
    assert teacher.grad is None and logits.grad.abs().sum() > 0


def test_the_gradient_of_the_soft_loss_is_t_times_the_difference_of_the_softened_outputs():
    logits, teacher = (
        torch.tensor([[0.0, 1.0], [2.0, -1.0]], requires_grad=True),
        torch.tensor([[1.0, 0.0], [0.5, 0.5]]),
    )
    soft_loss(logits, teacher, 2.0).backward()
    torch.testing.assert_close(
        logits.grad, 2.0 * ((logits.detach() / 2).softmax(1) - (teacher / 2).softmax(1)) / 2
    )
