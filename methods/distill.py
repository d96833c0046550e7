"""Distillation: a narrower model of the same family learns from dense's softened
outputs beside the labels.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", NIPS 2014
workshop, arXiv 1503.02531. The student is `slim`'s: the widest of the family that meets
the MACs budget, trained from scratch by the track's recipe. With p_s and p_t =
softmax(z / T) of student and teacher, its loss is (1 - alpha) CE(z_s, y) + alpha T^2
KL(p_t || p_s), the mean over images. The teacher is dense in eval mode; it sees the
same augmented images and never learns. T 4 and alpha 0.9 are what mdistiller takes on
CIFAR-100. alpha = 0 is `slim`, which says what the teacher is worth.

ASSUMED: the track's recipe, where mdistiller trains for 240 epochs of SGD; the track's
label smoothing stays in the cross-entropy (dense was trained with it, too); macs = 1
keeps dense as it is.

Checked against: github.com/megvii-research/mdistiller at a08d46f, whose KD was run
beside ours (gradients equal to 3e-7 of the largest at three T and alpha, weights after
200 steps to 3e-7); the closed form of the gradient; slim, which alpha = 0 equals bit
for bit.
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
    """Train the widest student of at most `macs` of dense's multiply-accumulates,
    `alpha` of its loss from dense at `temperature`; macs = 1 keeps dense.
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
