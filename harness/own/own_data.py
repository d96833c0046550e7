"""What a method sees of somebody's own images."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.point import counter
from methods import Data, Schedule, Split

HELD_OUT = 5  # every so manieth labelled image is for choices


@dataclass(frozen=True)
class Learnt:
    """What methods may learn from: calibration images (N, C, H, W), and labelled images
    for training and for choices, where there are any.
    """

    calibration: Tensor
    train: Split | None
    validation: Split | None


def learnt(images: Tensor, labelled: Split | None) -> Learnt:
    """Return what can be learnt from `images`, and from `labelled`, of which every
    fifth image is held out for choices.
    """
    if labelled is None or len(labelled.labels) < HELD_OUT:
        return Learnt(images, labelled, labelled)
    held = torch.arange(len(labelled.labels), device=labelled.labels.device) % HELD_OUT == 0
    parts = (Split(labelled.images[chosen], labelled.labels[chosen]) for chosen in (~held, held))
    return Learnt(images, *parts)


def recipe(epochs: float, images: int) -> Schedule:
    """Return the default track's recipe of fine-tuning for so many epochs of so many
    images.
    """
    return Schedule(
        "adamw",
        "fp32",
        epochs,
        min(64, images),
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup=0.3,
        label_smoothing=0.1,
    )


class OwnData(Data):
    """What a method sees: `learnt`, unaugmented; one budget of `epochs` for fine-tuning
    and for training from scratch; networks of `fresh`.
    """

    def __init__(
        self, learnt: Learnt, epochs: float, fresh: Callable[[float], nn.Module] | None, seed: int
    ) -> None:
        self.scratch = self.fine_tune = recipe(
            epochs, 1 if learnt.train is None else len(learnt.train.labels)
        )
        channels, height, width = learnt.calibration.shape[1:]
        self.image_shape = (channels, height, width)
        self._learnt, self._fresh, self._seed, self._calls = learnt, fresh, seed, 0

    @property
    def calibration(self) -> Tensor:
        return self._learnt.calibration.clone()

    @property
    def train(self) -> Split:
        assert self._learnt.train is not None, "compress() has seen to it"
        return self._learnt.train

    @property
    def validation(self) -> Split:
        assert self._learnt.validation is not None, "compress() has seen to it"
        return self._learnt.validation

    def batches(self, schedule: Schedule) -> Iterator[tuple[Tensor, Tensor]]:
        split, left, generator = (
            self.train,
            self.steps(schedule),
            self.generator(f"batches {self._calls}"),
        )
        self._calls += 1
        while left:
            order = torch.randperm(len(split.labels), generator=generator).to(split.labels.device)
            full = order[: len(order) // schedule.batch * schedule.batch].split(schedule.batch)[
                :left
            ]
            left -= len(full)
            yield from ((split.images[chosen], split.labels[chosen]) for chosen in full)

    def steps(self, schedule: Schedule) -> int:
        return int(schedule.epochs * (len(self.train.labels) // schedule.batch))

    def macs(self, model: nn.Module) -> int:
        return counter.count(copy.deepcopy(model).cpu(), self._learnt.calibration[:1].cpu()).macs

    def narrower(self, width: float) -> nn.Module:
        if self._fresh is None:
            raise ValueError(
                "this method trains a fresh or narrower network: give fresh=, a function of a "
                "width in (0, 1] that builds the model"
            )
        built = self._fresh(width)
        if not isinstance(built, nn.Module):
            raise ValueError(
                f"fresh({width:g}) returned {type(built).__name__}: it must return the model "
                "built at that width, a torch.nn.Module"
            )
        return built.to(self._learnt.calibration.device)

    def generator(self, name: str) -> torch.Generator:
        seed = int.from_bytes(
            hashlib.sha256(f"{self._seed} {name}".encode()).digest()[:8], "big", signed=True
        )
        return torch.Generator().manual_seed(seed)
