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
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from harness.data.folder import data_folder
from harness.data.image_files import ImageFiles
from leaderboard.records.errors import UserError, describe, unknown

# fixes which image is in which split, and the calibration images; changing it is a new
# version of the track
SPLIT_SEED = 0
DERIVED = re.compile(r"^class \w+\(Dataset\):", re.MULTILINE)  # what a file that is a dataset holds


@dataclass(frozen=True)
class Source:
    """A dataset as it was found, with its fixed split.

    images: (N, C, H, W) uint8, or float32 in [0, 1]; or files. labels: (N,) int64;
    train, validation, test: indices into both, disjoint. classes: how many there are.
    sha256: of the raw uint8 arrays before any conversion, images as (N, H, W, C) or (N,
    H, W); of files, of what says which they are. notes: what was decided on the way,
    for captions.
    """

    title: str  # how results name it
    images: np.ndarray | ImageFiles
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    sha256: dict[str, str]
    classes: int
    notes: tuple[str, ...] = ()

    def without(self, left_out: Collection[int]) -> Source:
        """Return it without the images of these indices, in whatever split."""

        def rest(which: np.ndarray) -> np.ndarray:
            return which[~np.isin(which, list(left_out))]

        said = f"{len(left_out)} files that are no images were left out"
        return replace(
            self,
            train=rest(self.train),
            validation=rest(self.validation),
            test=rest(self.test),
            notes=(*self.notes, said),
        )


class Dataset(ABC):
    """A dataset; what a track may tell it under `data` are fields of its dataclass. Its
    file is imported wherever a method runs, to ask what is closed: what is slow to
    import, `load` imports itself.

    skip_broken: whether files that are no images are left out, in place of an error.
    """

    skip_broken: bool = False

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @abstractmethod
    def load(self) -> Source:
        """Return all images with their split; raise UserError if they cannot be had."""

    def class_names(self) -> Sequence[str]:
        """Return the names of the classes in the order of their labels, () if they have
        none.
        """
        return ()

    @abstractmethod
    def closed(self) -> Iterable[Path]:
        """Return the files and folders that its test images lie in, which no method can
        read; a relative path begins in the data folder.
        """


def names() -> list[str]:
    """Return the names of all datasets, without importing any."""
    return sorted(name for name, file in _files().items() if DERIVED.search(file.read_text()))


def dataset(name: str, told: Mapping[str, Any] | None = None) -> Dataset:
    """Return the dataset `name` as a track tells it to be; raise UserError if there is
    none or it cannot be told that.
    """
    kind = _kind(name)
    try:
        return TypeAdapter(kind).validate_python(dict(told or {})) if is_dataclass(kind) else kind()
    except ValidationError as error:
        raise UserError(f"data of dataset '{name}': {describe(error)}") from None


def _kind(name: str) -> type[Dataset]:
    """Return the class of the dataset `name`; raise UserError if there is none, its
    import fails, or it does not hold exactly one complete Dataset.
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
    return own[0]


def closed(name: str, told: Mapping[str, Any]) -> list[Path]:
    """Return the files and folders that the test images lie in of the dataset `name` as
    it is told, and of all that need not be told where they lie.
    """
    return [*closed_by_all(), *_below(dataset(name, told).closed())]


def closed_by_all() -> list[Path]:
    """Return the files and folders that the test images of all datasets lie in that need
    not be told where.
    """
    known = [dataset(name) for name in names() if not _must_be_told(_kind(name))]
    return _below(place for each in known for place in each.closed())


def _below(places: Iterable[Path]) -> list[Path]:
    """Return the places, relative ones below the data folder."""
    places = list(places)
    try:
        folder = data_folder()
    except UserError:  # there is no such folder, and nothing in it
        return [place for place in places if place.is_absolute()]
    return [folder / place for place in places]


def _must_be_told(kind: type[Dataset]) -> bool:
    return is_dataclass(kind) and any(field.default is MISSING for field in fields(kind))


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
