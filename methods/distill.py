"""Distillation: a narrower model of the same family learns from dense's softened
outputs beside the labels.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", NIPS 2014
workshop, arXiv 1503.02531.

For an image of label y the student gives logits z_s and the teacher z_t. A temperature
T softens both: p_s = softmax(z_s / T), p_t = softmax(z_t / T). The student's loss is
the mean over images of

    (1 - alpha) CE(z_s, y) + alpha T^2 KL(p_t || p_s)

The teacher is dense in eval mode; it sees the same augmented images as the student and
never learns. The student is that of `slim`: the widest model of the family that meets
the budget of multiply-accumulates (MACs), trained from scratch by the track's recipe.

Arguments:
    macs: the MACs that the student may have, as a share of dense's; 1 keeps dense as it
        is
    temperature: T, by which the logits are divided before the softmax; 4 is what
        mdistiller takes on CIFAR-100
    alpha: the weight of the teacher in the loss, 1 - alpha that of the labels; 0 is
        `slim`, which says what the teacher is worth, 1 leaves the labels out; 0.9 is
        what mdistiller takes on CIFAR-100

Assumed:
    - Training follows the track's recipe, where mdistiller trains for 240 epochs of
      SGD.
    - The track's label smoothing stays in the cross-entropy: dense was trained with it,
      too.

Checked against:
    - github.com/megvii-research/mdistiller at a08d46f, whose KD was run beside ours:
      gradients equal to 3e-7 of the largest at three T and alpha, weights after 200
      steps to 3e-7.
    - The closed form of the gradient.
    - slim, which alpha = 0 equals bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.training.losses import soft_loss, with_loss
from methods.parts.training.slim import widest
from methods.parts.training.train import train

Lesson = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


def lesson(teacher: nn.Module, T: float, alpha: float) -> Lesson:
    """Return a forward hook that gives a student's logits z_s the loss alpha T^2 KL(p_t
    || p_s), and 1 - alpha of whatever loss follows.
    """

    def hook(_student: nn.Module, args: tuple[Tensor, ...], z_s: Tensor) -> Tensor:
        with torch.no_grad():
            z_t = teacher(args[0])
        return with_loss(z_s, alpha * soft_loss(z_s, z_t, T), 1 - alpha)

    return hook


@dataclass(frozen=True)
class Distill(Method):
    """Train the widest student of at most `macs` of dense's multiply-accumulates, with
    `alpha` of its loss from dense at `temperature`.
    """

    macs: Annotated[float, Field(gt=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9

    family = "distillation"
    paper = "Hinton et al. 2015, arXiv 1503.02531"
    needs = "scratch"
    stochastic = True
    identity = {"macs": 1.0}
    strongest = {"macs": 0.1}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.macs == 1:
            return model
        student = widest(data, self.macs * data.macs(model))
        attached = student.register_forward_hook(lesson(model.eval(), self.temperature, self.alpha))
        train(student, data, data.scratch)
        attached.remove()
        return student
