"""The data of a track: loading, the fixed split, and the view of it that methods get."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import macs, models
from harness.errors import UserError, unknown
from harness.params import AugmentParams, ModelParams, TrackParams
from methods import Data, Schedule, Split

SPLIT_SEED = 0  # fixes which image is in which split, and the calibration images; changing it is a new version of the track


@dataclass(frozen=True)
class TrackData:
    """All splits of a track, normalised by the mean and standard deviation of train."""

    train: Split
    validation: Split
    test: Split
    calibration: Tensor

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return int(self.train.labels.max()) + 1


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's handwritten digits (UCI, 1,797 8x8 images of 0..16) as (N, 1, 8, 8) float32 in [0, 1], and labels."""
    from sklearn.datasets import load_digits  # here, for workers need not wait for scikit-learn

    bunch = load_digits()
    return bunch.images[:, None].astype(np.float32) / 16, bunch.target


DATASETS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {"digits": _digits}


def load(params: TrackParams) -> TrackData:
    """Load the track's dataset, resize it bilinearly, and cut it into train / validation / test of 60 / 10 / 30 %, stratified by label.

    Raises UserError for an unknown dataset or more calibration images than train has.
    """
    from sklearn.model_selection import train_test_split

    if params.dataset not in DATASETS:
        raise unknown("dataset", params.dataset, DATASETS)
    images, labels = DATASETS[params.dataset]()
    index = np.arange(len(labels))
    rest, test = train_test_split(index, test_size=0.3, stratify=labels, random_state=SPLIT_SEED)
    train, validation = train_test_split(rest, test_size=1 / 7, stratify=labels[rest], random_state=SPLIT_SEED)
    if params.calibration > len(train):
        raise UserError(f"calibration asks for {params.calibration} images but train has {len(train)}: lower it in params.yaml")
    size = (params.image_size, params.image_size)
    pixels = functional.interpolate(torch.from_numpy(images), size=size, mode="bilinear", align_corners=False)
    pixels = (pixels - pixels[train].mean()) / pixels[train].std()
    chosen = np.random.default_rng(SPLIT_SEED).choice(train, params.calibration, replace=False)

    def split(which: np.ndarray) -> Split:
        return Split(pixels[which].clone(), torch.from_numpy(labels[which]).long())

    return TrackData(split(train), split(validation), split(test), pixels[chosen].clone())


def save(data: TrackData, folder: Path) -> None:
    """Write what methods may see to learn.safetensors and the test split to test.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    learn = {
        "train.images": data.train.images,
        "train.labels": data.train.labels,
        "validation.images": data.validation.images,
        "validation.labels": data.validation.labels,
        "calibration": data.calibration,
    }
    safetensors.torch.save_file(learn, folder / "learn.safetensors")
    safetensors.torch.save_file({"images": data.test.images, "labels": data.test.labels}, folder / "test.safetensors")


def load_test(folder: Path) -> Split:
    """Read the test split that `save` wrote."""
    tensors = safetensors.torch.load_file(folder / "test.safetensors")
    return Split(tensors["images"], tensors["labels"])


def digest(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 of names, shapes and bytes of `tensors`."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def content_hash(data: TrackData) -> str:
    """Return the sha256 of everything loaded, which every point's fingerprint carries."""
    return digest(
        {
            "train": data.train.images,
            "train.labels": data.train.labels,
            "validation": data.validation.images,
            "validation.labels": data.validation.labels,
            "test": data.test.images,
            "test.labels": data.test.labels,
            "calibration": data.calibration,
        }
    )


class MethodData(Data):
    """What a method sees of a track, for one model and one seed; counts the images drawn in `images_seen`."""

    def __init__(self, learn: dict[str, Tensor], params: TrackParams, model: ModelParams, seed: int) -> None:
        self.scratch, self.fine_tune = params.scratch.schedule(), params.fine_tune.schedule()
        channels, height, width = learn["train.images"].shape[1:]
        self.image_shape = (channels, height, width)
        self.images_seen = 0
        self._learn, self._augment, self._model, self._seed, self._calls = learn, params.augment, model, seed, 0

    @classmethod
    def read(cls, folder: Path, params: TrackParams, model: ModelParams, seed: int) -> MethodData:
        """Read the part of the track's data that `save` wrote for methods."""
        return cls(safetensors.torch.load_file(folder / "learn.safetensors"), params, model, seed)

    @property
    def calibration(self) -> Tensor:
        self.images_seen += len(self._learn["calibration"])
        return self._learn["calibration"].clone()

    @property
    def train(self) -> Split:
        return self._split("train")

    @property
    def validation(self) -> Split:
        return self._split("validation")

    def _split(self, name: str) -> Split:
        images, labels = self._learn[f"{name}.images"], self._learn[f"{name}.labels"]
        self.images_seen += len(images)
        return Split(images.clone(), labels.clone())

    def batches(self, schedule: Schedule) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self._learn["train.images"], self._learn["train.labels"]
        generator = self.generator(f"batches {self._calls}")
        self._calls += 1
        for _ in range(schedule.epochs):
            order = torch.randperm(len(images), generator=generator)
            for step in range(len(images) // schedule.batch):
                chosen = order[step * schedule.batch : (step + 1) * schedule.batch]
                self.images_seen += len(chosen)
                yield augmented(images[chosen], self._augment, generator), labels[chosen]

    def steps(self, schedule: Schedule) -> int:
        return schedule.epochs * (len(self._learn["train.images"]) // schedule.batch)

    def macs(self, model: nn.Module) -> int:
        return macs.count(model, self._learn["calibration"][:1]).macs

    def narrower(self, width: float) -> nn.Module:
        classes = int(self._learn["train.labels"].max()) + 1
        return models.build(self._model, self.image_shape[0], classes, width)

    def generator(self, name: str) -> torch.Generator:
        seed = int.from_bytes(hashlib.sha256(f"{self._seed} {name}".encode()).digest()[:8], "big", signed=True)
        return torch.Generator().manual_seed(seed)


def augmented(images: Tensor, params: AugmentParams, generator: torch.Generator) -> Tensor:
    """Rotate, scale and shift each of `images` (N, C, H, W) by its own random affine map, borders repeated."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    count = len(images)
    angle = uniform(count) * math.radians(params.degrees)
    scale = 1 + uniform(count) * params.scale
    shift = uniform(count, 2, 1) * params.shift
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    linear = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    grid = functional.affine_grid(torch.cat([linear, shift], 2), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
