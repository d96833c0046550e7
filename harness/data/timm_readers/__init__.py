"""What timm's `create_dataset` reads beside folders: a file of this folder holds the
readers of one library, each a class derived from `Reads`, which `timm_dataset.py` lists
by the prefix of its names.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from timm.data import create_dataset

from harness.data.folder import data_folder
from harness.data.timm_readers.images import Part
from leaderboard.records.errors import UserError, one_line

TOLD = 300  # characters of what another library says of an error


@dataclass(frozen=True)
class Asked:
    """What a track says of the dataset `name`, "PREFIX/REST"; see TimmDataset."""

    name: str
    root: str | None
    download: bool
    input_key: str | None
    target_key: str | None
    skip_broken: bool

    @property
    def prefix(self) -> str:
        """Return what stands before the first slash, lower case as timm has it."""
        return self.name.partition("/")[0].lower()

    @property
    def rest(self) -> str:
        """Return what stands behind the first slash."""
        return self.name.partition("/")[2]

    @property
    def cache(self) -> str | None:
        """Return the root as an absolute path, if the track says one."""
        return None if self.root is None else str(below_data(self.root))

    def read(self, name: str, split: str, told: Mapping[str, Any]) -> Any:
        """Return the dataset that timm makes of `name` and what it is told."""
        with self.reading(split):
            return create_dataset(name, split=split, **told)

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Raise UserError for whatever timm, or what it reads with, raises."""
        try:
            yield
        except Exception as error:
            said = one_line(f"{type(error).__name__}: {error}")[:TOLD]
            raise UserError(
                f"{self.name} ({what}) cannot be read: {said}: correct what `data` of the track "
                "says, or fetch the files first (`download: yes` where timm can)"
            ) from error

    def stream(self, split: str, samples: Iterable[Any]) -> Iterator[Any]:
        """Yield what timm reads of a split; raise as `reading` does."""
        with self.reading(split):
            yield from samples


class Reads(ABC):
    """How timm reads the names of one prefix. packages: which modules it takes, each
    with the package that has it. of_folders: whether a name may be a folder.
    """

    packages: ClassVar[Mapping[str, str]] = {}
    of_folders: ClassVar[bool] = False

    @abstractmethod
    def places(self, asked: Asked) -> Iterable[Path]:
        """Return the files and folders that its images lie in, whether there are any
        yet or not; a relative path begins in the data folder. Takes no package.
        """

    @abstractmethod
    def splits(self, asked: Asked) -> list[str]:
        """Return the names of all splits; raise UserError if they cannot be had."""

    @abstractmethod
    def part(self, asked: Asked, split: str) -> Part:
        """Read one split; raise UserError if it cannot be had."""

    def has(self, split: str, splits: list[str]) -> bool:
        """Say whether `split`, which a track names, is of these or a slice of one, as
        Hugging Face and TensorFlow write it: train[:80%].
        """
        return base(split) in splits


def base(split: str) -> str:
    """Return the split that `split` is, or is a slice of."""
    return split.partition("[")[0]


def below_data(named: str) -> Path:
    """Return a path that is absolute or in the data folder as an absolute one."""
    path = Path(named).expanduser()
    return path if path.is_absolute() else (data_folder() / path).absolute()


def behind_links(places: list[Path]) -> set[Path]:
    """Return what links below `places`, and below what they lead to, lead to elsewhere."""
    found, todo = set(places), [*places]
    while todo:
        for link in _links(todo.pop()):
            target = link.resolve()
            if not any(target.is_relative_to(place) for place in found):
                found.add(target)
                todo.append(target)
    return found - set(places)


def _links(folder: Path) -> Iterator[Path]:
    """Yield the links below a folder, none of what lies behind one."""
    try:
        with os.scandir(folder) as entries:
            inside = list(entries)
    except OSError:  # a file, or nothing yet
        return
    for entry in inside:
        if entry.is_symlink():
            yield Path(entry.path)
        elif entry.is_dir():
            yield from _links(Path(entry.path))
