"""The splits of a track, as they are loaded and as they lie on disk: what methods may
see in one file, the test split in another.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from harness.data import SPLIT_SEED, Source
from harness.data.image_files import BrokenImage, ImageFiles
from harness.data.mapped import mapped, write_tensors
from harness.data.transform import Transform, transform_of
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
    "classes",
)


@dataclass(frozen=True)
class TrackData:
    """All splits of a track as one of its models takes them: pixels (N, C, H, W) as
    stored, uint8 or float32, in memory or mapped from a file; `mean` and `std` (C, 1, 1)
    normalise them.
    """

    title: str
    sources: dict[str, str]
    classes: int
    train: Split
    validation: Split
    test: Split
    calibration: Tensor
    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Drawn:
    """The images of a source that a track takes, by index: `first` of each split, and
    the calibration images, which are drawn from train, or from validation where there
    is no training split.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    calibration: np.ndarray


def drawn(source: Source, params: TrackParams) -> Drawn:
    """Draw the images of a track; raise UserError if it asks for more calibration images
    than there are.
    """
    train, validation, test = (
        which[: params.first] for which in (source.train, source.validation, source.test)
    )
    if not len(test):
        raise UserError(f"{source.title} has no test image that is one: mend its files")
    name, pool = ("train", train) if len(train) else ("validation", validation)
    if params.calibration > len(pool):
        raise UserError(
            f"calibration asks for {params.calibration} images but {name} has {len(pool)}: lower "
            "it in params.yaml"
        )
    chosen = np.random.default_rng(SPLIT_SEED).choice(pool, params.calibration, replace=False)
    return Drawn(train, validation, test, chosen)


class BrokenFiles(UserError):
    """Files that are no images; `indices`: which of the source's."""

    def __init__(self, broken: Mapping[int, str]) -> None:
        more = f" (and {len(broken) - 1:,} more like it)" if len(broken) > 1 else ""
        super().__init__(f"{broken[min(broken)]}{more}")
        self.indices = frozenset(broken)


def load(
    source: Source,
    params: TrackParams,
    transform: Transform,
    scratch: Path,
    made: Callable[[int], None] = lambda number: None,
) -> TrackData:
    """Make what one of the track's models takes of a source: pixels of files are written
    into the folder `scratch` and mapped; `made` is told the number of each, from 0.

    Raises UserError where `drawn` does, for files that are no images, and for numbers
    that do not fit the images' channels.
    """
    which = drawn(source, params)
    if isinstance(source.images, ImageFiles):
        images = source.images
        number, broken = count(), dict[int, str]()
        train, validation, test, calibration = (
            _of_files(
                images,
                part,
                transform,
                scratch / f"{name}.npy",
                lambda: made(next(number)),
                broken,
            )
            for name, part in vars(which).items()
        )
        if broken:
            raise BrokenFiles(broken)
    else:
        pixels = transform.of_arrays(torch.from_numpy(source.images))
        train, validation, test, calibration = (
            pixels[part] for part in (which.train, which.validation, which.test, which.calibration)
        )
    mean, std = _moments(train, params.dataset, transform)

    def split(images: Tensor, part: np.ndarray) -> Split:
        return Split(images, torch.from_numpy(source.labels[part]).long())

    return TrackData(
        source.title,
        source.sha256,
        source.classes,
        split(train, which.train),
        split(validation, which.validation),
        split(test, which.test),
        calibration,
        mean,
        std,
    )


def _of_files(
    images: ImageFiles,
    which: np.ndarray,
    transform: Transform,
    file: Path,
    made: Callable[[], None],
    broken: dict[int, str],
) -> Tensor:
    """Return the pixels (N, 3, H, W) uint8 of files, mapped from `file`, which is made
    of them by as many threads as there are cores; what is no image is put into `broken`.
    """
    shape = (len(which), 3, *transform.size)
    if not len(which):
        return torch.empty(shape, dtype=torch.uint8)
    pixels = mapped(file, shape)
    of_file = transform.of_files()

    def make(row: int) -> None:
        try:
            pixels[row] = of_file(images.decode(int(which[row])))
        except BrokenImage as error:
            broken[int(which[row])] = str(error)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(make, range(len(which))):
            made()
    return torch.from_numpy(pixels)


def _moments(train: Tensor, dataset: str, transform: Transform) -> tuple[Tensor, Tensor]:
    """Return mean and std per channel (C, 1, 1), in the units of the stored pixels."""
    unit = 255 if train.dtype == torch.uint8 else 1
    if transform.mean is None or transform.std is None:
        flat = train.transpose(0, 1).flatten(1).float()
        return flat.mean(1)[:, None, None], flat.std(1)[:, None, None]
    found = len(transform.mean), len(transform.std)
    if found != (train.shape[1],) * 2:
        raise UserError(
            f"normalise names {found[0]} means and {found[1]} deviations, but '{dataset}' "
            f"has {train.shape[1]} channels"
        )
    mean, std = torch.tensor(transform.mean), torch.tensor(transform.std)
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
    units = {"mean": data.mean, "std": data.std, "classes": torch.tensor(data.classes)}
    write_tensors(folder / LEARN, _tensors(data) | units)
    test = {"images": data.test.images, "labels": data.test.labels}
    write_tensors(folder / TEST, test | units)


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


def folder_of(home: Path, track: TrackParams, model: str) -> Path:
    """Return the folder of `home`, that of the track's data, with what a model takes."""
    return home / transform_of(track, model).key


def digest(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 of names, shapes and bytes of `tensors`."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def content_hash(source: Source, params: TrackParams, first: TrackData | None = None) -> str:
    """Return the sha256 of what a track takes of a source, which every point's
    fingerprint carries: of files, what they hold, their labels and which of them are in
    which split; of arrays, all splits as `first`, of the track's first model, stores
    them, and what normalises them.
    """
    if isinstance(source.images, ImageFiles):
        which = {name: torch.from_numpy(part) for name, part in vars(drawn(source, params)).items()}
        held = f"{sorted(source.sha256.items())} {source.classes}"
        content = digest(which | {"labels": torch.from_numpy(source.labels)})
        return hashlib.sha256(f"{held} {content}".encode()).hexdigest()
    assert first is not None
    return digest(
        _tensors(first) | {"test.images": first.test.images, "test.labels": first.test.labels}
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
        return self.tensors["calibration"].shape[1]

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return int(self.tensors["classes"])

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
