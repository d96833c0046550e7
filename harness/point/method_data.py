"""What a method sees of a track: the images it may learn from, drawn and augmented as
the track says, and how its work is counted.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import get_args

import torch
from torch import Tensor, nn

from harness.data.splits import Learn
from harness.models import build
from harness.point import counter
from harness.point.augment import cropped, cut_out, warped
from leaderboard.records.errors import BrokenContract
from leaderboard.records.params import TrackParams
from methods import Data, Needs, Schedule, Split

CLASSES: tuple[Needs, ...] = get_args(Needs)  # of budgets, each with all that those before it have


class MethodData(Data):
    """What a method sees of a track, for one model and one seed, on the device of
    `learn`; counts the images drawn in `images_seen`.

    needs: the budget class of the method: what a higher class uses raises
    BrokenContract, for a point's fingerprint knows of what its class uses alone.
    """

    def __init__(
        self, learn: Learn, params: TrackParams, model: str, seed: int, needs: Needs
    ) -> None:
        self._scratch, self._fine_tune = (
            Schedule(**recipe.model_dump())
            for recipe in (params.scratch_of(model), params.fine_tune_of(model))
        )
        self._needs: Needs = needs
        channels, height, width = learn.tensors["train.images"].shape[1:]
        self.image_shape = (channels, height, width)
        self.images_seen = 0
        self._learn, self._augment, self._model, self._seed, self._calls = (
            learn,
            params.augment,
            params.models[model],
            seed,
            0,
        )

    def _only_for(self, least: Needs, what: str) -> None:
        if CLASSES.index(self._needs) < CLASSES.index(least):
            raise BrokenContract(
                f'the method says needs = "{self._needs}" and asks for data.{what}: say needs = '
                f'"{least}"'
            )

    @property
    def scratch(self) -> Schedule:  # type: ignore[override]  # of the contract, where it reads as what it is
        self._only_for("scratch", "scratch")
        return self._scratch

    @property
    def fine_tune(self) -> Schedule:  # type: ignore[override]
        self._only_for("fine-tune", "fine_tune")
        return self._fine_tune

    @property
    def calibration(self) -> Tensor:
        self._only_for("calibration", "calibration")
        pixels = self._learn.tensors["calibration"]
        self.images_seen += len(pixels)
        return self._learn.normalised(pixels)

    @property
    def train(self) -> Split:
        return self._split("train")

    @property
    def validation(self) -> Split:
        return self._split("validation")

    def _split(self, name: str) -> Split:
        self._only_for("labels", name)
        pixels, labels = (
            self._learn.tensors[f"{name}.images"],
            self._learn.tensors[f"{name}.labels"],
        )
        self.images_seen += len(pixels)
        return Split(self._learn.normalised(pixels), labels.clone())

    def batches(self, schedule: Schedule) -> Iterator[tuple[Tensor, Tensor]]:
        self._only_for("fine-tune", "batches")
        pixels, labels = self._learn.tensors["train.images"], self._learn.tensors["train.labels"]
        generator = self.generator(f"batches {self._calls}")
        self._calls += 1
        left = self.steps(schedule)
        while left:
            order = torch.randperm(len(pixels), generator=generator).to(pixels.device)
            batches = order[: len(order) // schedule.batch * schedule.batch].split(schedule.batch)[
                :left
            ]
            left -= len(batches)
            for chosen in batches:
                self.images_seen += len(chosen)
                images = self._learn.normalised(cropped(pixels[chosen], self._augment, generator))
                yield (
                    cut_out(warped(images, self._augment, generator), self._augment, generator),
                    labels[chosen],
                )

    def steps(self, schedule: Schedule) -> int:
        return int(schedule.epochs * (len(self._learn.tensors["train.labels"]) // schedule.batch))

    def macs(self, model: nn.Module) -> int:
        if self._learn.device.type != "cpu":
            # one count, whatever operators another device would choose
            model = copy.deepcopy(model).cpu()
        return counter.count(model, self._learn.probe(1)).macs

    def narrower(self, width: float) -> nn.Module:
        self._only_for("scratch", "narrower")
        return build.build(self._model, self._learn.channels, self._learn.classes, width).to(
            self._learn.device
        )

    def generator(self, name: str) -> torch.Generator:
        seed = int.from_bytes(
            hashlib.sha256(f"{self._seed} {name}".encode()).digest()[:8], "big", signed=True
        )
        return torch.Generator().manual_seed(seed)
