"""The splits of a track, as they are loaded and as they lie on disk: what methods may
see in one file, the test split in another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from harness.data import SPLIT_SEED, dataset
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import TrackParams
from methods import Split

LEARN, TEST = "learn.safetensors", "test.safetensors"  # what methods may see, and what they may not
# the tensors of the first
LEARNED = (
    "train.images",
    "train.labels",
    "validation.images",
    "validation.labels",
    "calibration",
    "mean",
    "std",
)


@dataclass(frozen=True)
class TrackData:
    """All splits of a track, pixels (N, C, H, W) as stored, uint8 or float32; `mean`
    and `std` (C, 1, 1) normalise them.
    """

    title: str
    sources: dict[str, str]
    train: Split
    validation: Split
    test: Split
    calibration: Tensor
    mean: Tensor
    std: Tensor


def load(params: TrackParams) -> TrackData:
    """Load the track's dataset with its fixed split, resize it bilinearly if the track
    asks for another size, and draw the calibration images.

    Raises UserError for an unknown or missing dataset, or more calibration images than
    train has.
    """
    source = dataset(params.dataset).load()
    train, validation, test = (
        which[: params.first] for which in (source.train, source.validation, source.test)
    )
    if params.calibration > len(train):
        raise UserError(
            f"calibration asks for {params.calibration} images but train has {len(train)}: lower "
            "it in params.yaml"
        )
    pixels = _resized(torch.from_numpy(source.images), params.image_size)
    mean, std = _moments(pixels[train], params)
    chosen = np.random.default_rng(SPLIT_SEED).choice(train, params.calibration, replace=False)

    def split(which: np.ndarray) -> Split:
        return Split(pixels[which], torch.from_numpy(source.labels[which]).long())

    return TrackData(
        source.title,
        source.sha256,
        split(train),
        split(validation),
        split(test),
        pixels[chosen],
        mean,
        std,
    )


def _resized(pixels: Tensor, size: int) -> Tensor:
    if pixels.shape[-2:] == (size, size):
        return pixels
    if pixels.dtype == torch.uint8:
        pixels = pixels.float() / 255
    return functional.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)


def _moments(train: Tensor, params: TrackParams) -> tuple[Tensor, Tensor]:
    """Return mean and std per channel (C, 1, 1), in the units of the stored pixels."""
    unit = 255 if train.dtype == torch.uint8 else 1
    if params.normalise is None:
        flat = train.transpose(0, 1).flatten(1).float()
        return flat.mean(1)[:, None, None], flat.std(1)[:, None, None]
    found = len(params.normalise.mean), len(params.normalise.std)
    if found != (train.shape[1],) * 2:
        raise UserError(
            f"normalise names {found[0]} means and {found[1]} deviations, but '{params.dataset}' "
            f"has {train.shape[1]} channels"
        )
    mean, std = torch.tensor(params.normalise.mean), torch.tensor(params.normalise.std)
    return unit * mean[:, None, None], unit * std[:, None, None]


def normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return stored pixels (N, C, H, W) as models take them, float32."""
    return (pixels - mean) / std


def _tensors(data: TrackData) -> dict[str, Tensor]:
    """Name all that methods may see."""
    return {
        "train.images": data.train.images,
        "train.labels": data.train.labels,
        "validation.images": data.validation.images,
        "validation.labels": data.validation.labels,
        "calibration": data.calibration,
        "mean": data.mean,
        "std": data.std,
    }


def save(data: TrackData, folder: Path) -> None:
    """Write what methods may see to learn.safetensors and the test split to
    test.safetensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(_tensors(data), folder / LEARN)
    test = {
        "images": data.test.images,
        "labels": data.test.labels,
        "mean": data.mean,
        "std": data.std,
    }
    safetensors.torch.save_file(test, folder / TEST)


@dataclass(frozen=True)
class TestSplit:
    """The test split as `save` wrote it."""

    __test__ = False  # or pytest collects it

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def read(cls, folder: Path) -> TestSplit:
        """Read the test split that `save` wrote; raise UserError if it is missing or
        damaged.
        """
        with files.reading(folder / TEST):
            tensors = safetensors.torch.load_file(folder / TEST)
            return cls(tensors["images"], tensors["labels"], tensors["mean"], tensors["std"])

    def images(self, count: int) -> Tensor:
        """Return the first `count` images, normalised."""
        return normalised(self.pixels[:count], self.mean, self.std)

    def batches(self, size: int, device: torch.device) -> Iterator[Tensor]:
        """Yield all images in order, normalised, on `device`, in the memory format in
        which convolutions are fastest.
        """
        mean, std = self.mean.to(device), self.std.to(device)
        for pixels in self.pixels.split(size):
            yield normalised(pixels.to(device), mean, std).contiguous(
                memory_format=torch.channels_last
            )


def digest(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 of names, shapes and bytes of `tensors`."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def content_hash(data: TrackData) -> str:
    """Return the sha256 of all splits as stored and of what normalises them, which
    every point's fingerprint carries.
    """
    return digest(
        _tensors(data) | {"test.images": data.test.images, "test.labels": data.test.labels}
    )


@dataclass(frozen=True)
class Learn:
    """What methods may see of a track, as it lies on disk."""

    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path, device: torch.device) -> Learn:
        """Read what `save` wrote for methods, onto `device`; raise UserError if it is
        missing or damaged.
        """
        with files.reading(folder / LEARN):
            tensors = safetensors.torch.load_file(folder / LEARN)
            return cls({name: tensors[name].to(device) for name in LEARNED})

    @property
    def device(self) -> torch.device:
        """Return where all of it lies."""
        return self.tensors["mean"].device

    @property
    def channels(self) -> int:
        """Return the channels of an image."""
        return self.tensors["train.images"].shape[1]

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return int(self.tensors["train.labels"].max()) + 1

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return stored pixels (N, C, H, W) as models take them."""
        return normalised(pixels, self.tensors["mean"], self.tensors["std"])

    def validation(self, size: int) -> Iterator[Tensor]:
        """Yield the validation images in order, normalised, in batches of `size`, as
        `TestSplit.batches` does the test images.
        """
        for pixels in self.tensors["validation.images"].split(size):
            yield self.normalised(pixels).contiguous(memory_format=torch.channels_last)

    def probe(self, count: int) -> Tensor:
        """Return the first `count` calibration images on the CPU, to trace and compare
        models with.
        """
        return self.normalised(self.tensors["calibration"][:count]).cpu()
