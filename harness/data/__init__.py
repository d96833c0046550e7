"""The contract of a dataset: its images with their fixed split, and where its test
images lie.

A dataset is one file of this folder that holds one class derived from `Dataset`; tracks
of params.yaml name it by its file. Files whose name begins with an underscore are parts
of datasets.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.folder import data_folder
from leaderboard.records.errors import UserError, unknown

# fixes which image is in which split, and the calibration images; changing it is a new
# version of the track
SPLIT_SEED = 0
DERIVED = re.compile(r"^class \w+\(Dataset\):", re.MULTILINE)  # what a file that is a dataset holds


@dataclass(frozen=True)
class Source:
    """A dataset as it was found, with its fixed split.

    images: (N, C, H, W) uint8, or float32 in [0, 1]; labels: (N,) int64; train,
    validation, test: indices into both, disjoint.
    sha256: of the raw uint8 arrays before any conversion, images as (N, H, W, C) or (N,
    H, W).
    """

    title: str  # how results name it
    images: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    sha256: dict[str, str]


class Dataset(ABC):
    """A dataset. Its file is imported wherever a method runs, to ask what is closed:
    what is slow to import, `load` imports itself.
    """

    @abstractmethod
    def load(self) -> Source:
        """Return all images with their split; raise UserError if they cannot be had."""

    @abstractmethod
    def closed(self) -> Iterable[Path]:
        """Return the files and folders that its test images lie in, which no method can
        read; a relative path begins in the data folder.
        """


def names() -> list[str]:
    """Return the names of all datasets, without importing any."""
    return sorted(name for name, file in _files().items() if DERIVED.search(file.read_text()))


def dataset(name: str) -> Dataset:
    """Return the dataset `name`; raise UserError if there is none, its import fails, or
    it does not hold exactly one complete Dataset.
    """
    if name not in _files():
        raise unknown("dataset", name, names())
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except Exception as error:
        raise UserError(
            f"dataset '{name}' cannot be imported: {type(error).__name__}: "
            f"{' '.join(str(error).split())}"
        ) from error
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and issubclass(value, Dataset)
    ]
    if len(own) != 1 or inspect.isabstract(own[0]):
        raise UserError(
            f"dataset '{name}' must be one class derived from Dataset with methods load and "
            f"closed, found {len(own)}: see {__name__}"
        )
    return own[0]()


def closed() -> list[Path]:
    """Return the files and folders that the test images of all datasets lie in."""
    places = [place for name in names() for place in dataset(name).closed()]
    try:
        folder = data_folder()
    except UserError:  # there is no such folder, and nothing in it
        return [place for place in places if place.is_absolute()]
    return [folder / place for place in places]


def sha256(array: np.ndarray) -> str:
    """Return the sha256 of the bytes of an array."""
    return hashlib.sha256(array.tobytes()).hexdigest()


def _files() -> dict[str, Path]:
    return {
        file.stem: file
        for folder in __path__
        for file in Path(folder).glob("*.py")
        if not file.stem.startswith("_")
    }
