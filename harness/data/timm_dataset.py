"""Whatever timm's `create_dataset` reads beside a folder, as a dataset: Hugging Face's
(`hfds/`, `hfids/`), shards of WebDataset (`wds/`), torchvision's (`torch/`) and
TensorFlow's (`tfds/`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from harness.data import Dataset, Source
from harness.data._split_rules import (
    EVALUATED,
    TRAIN,
    WHOLE,
    Layout,
    gaps,
    listed,
    split,
    title,
)
from harness.data.folder import data_folder
from harness.data.timm_readers import Asked, Reads, base, behind_links
from harness.data.timm_readers.hugging_face import Hfds, Hfids
from harness.data.timm_readers.images import Part, joined
from harness.data.timm_readers.labels import numbered
from harness.data.timm_readers.streams import Tfds, Wds
from harness.data.timm_readers.torchvision import Torch
from leaderboard.records.errors import UserError, one_line, unknown

READS: Mapping[str, Reads] = {
    "hfds": Hfds(),
    "hfids": Hfids(),
    "tfds": Tfds(),
    "torch": Torch(),
    "wds": Wds(),
}
OPTIONS = re.compile(r":(?=\w+=)")  # what stands before `data` of a track
PATHS = ("root", "classes")  # fields of `data`


@dataclass(frozen=True)
class TimmDataset(Dataset):
    """A dataset by timm's name, PREFIX/REST.

    root: the folder that timm calls so, absolute or in the data folder.
    train, validation, test: splits in place of those that there are: test, or else val
    or validation, is test, the one that remains or a tenth of train is validation, and
    a single one is split as a folder without splits is.
    classes: a file, absolute or in the data folder, that lists all classes in the order
    of the model's outputs, one a line. input_key, target_key: what timm calls so, the
    columns of images and labels. download: whether timm may, where it asks; Hugging
    Face's library does, and does not ask. skip_broken: whether images that are none are
    left out, not an error. title: how results name it.
    """

    name: str
    root: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    classes: str | None = None
    input_key: str | None = None
    target_key: str | None = None
    download: bool = False
    skip_broken: bool = False
    title: str | None = None

    def load(self) -> Source:
        """Read all splits; a stream is read once, and kept in the data folder.

        The hash is of each split's images: of their files, or where timm has decoded
        them already, of size and pixels. Revisions and versions are no part of it.
        Raises UserError where a package is missing, the dataset or a split cannot be
        had, and for images without a label or one that the list of classes lacks.
        """
        layout, parts = self._parts()
        labels, classes = self._labels(parts)
        inside = [name for name, part in parts.items() for _ in part.labels]
        which = split(layout, inside, labels, "")
        if not len(which.test):
            raise UserError(f"{self.name} has no test images: a single one cannot be split")
        count = len(classes) or int(labels.max()) + 1
        names = classes or [str(label) for label in range(count)]
        return Source(
            title=self.title or title(one_line(self.name), labels, count),
            images=joined(parts.values()),
            labels=labels,
            train=which.train,
            validation=which.validation,
            test=which.test,
            sha256={name: part.sha256 for name, part in parts.items()},
            classes=count,
            notes=(
                *which.notes,
                *(note for part in parts.values() for note in part.notes),
                *gaps(which, labels, names),
            ),
        )

    def class_names(self) -> Sequence[str]:
        """Return the list of classes, or what the library calls them, if it does."""
        return self._labels(self._parts()[1])[1]

    def closed(self) -> Iterable[Path]:
        """Return all places in which it may lie, the caches of libraries among them, and
        what links there lead to: which images in a place are test is nowhere told apart.
        """
        places = [_below(place) for place in self._reads().places(self._asked())]
        return [*places, *behind_links(places)]

    def _asked(self) -> Asked:
        return Asked(
            name=self.name,
            root=self.root,
            download=self.download,
            input_key=self.input_key,
            target_key=self.target_key,
            skip_broken=self.skip_broken,
        )

    def _reads(self) -> Reads:
        asked = self._asked()
        if asked.prefix not in READS or not asked.rest:
            raise unknown("dataset of timm", self.name, [f"{prefix}/NAME" for prefix in READS])
        return READS[asked.prefix]

    def _parts(self) -> tuple[Layout, dict[str, Part]]:
        """Read what there is to be read; an image in two splits is an error."""
        reads, asked = self._reads(), self._asked()
        _there(self.name, reads)
        there = reads.splits(asked)
        layout = self._layout(there, reads)
        names = there if layout.test == WHOLE else layout.names
        parts = {name: reads.part(asked, name) for name in names}
        if empty := [name for name, part in parts.items() if not part.labels]:
            raise UserError(f"{self.name} has no images in {empty[0]}: name another split")
        paths = [set(part.images.paths) for part in parts.values()]
        if sum(map(len, paths)) > len(set().union(*paths)):
            raise UserError(
                f"{self.name}: {' and '.join(parts)} share files: no image may be in two splits"
            )
        return layout, parts

    def _layout(self, there: list[str], reads: Reads) -> Layout:
        """Return which split is which, as the track or its name says; raise UserError
        for a split that there is not, two of one, and none for test.
        """
        told = [name for name in (self.train, self.validation, self.test) if name is not None]
        for name in told:
            if not reads.has(name, there):
                raise unknown(f"split of {self.name}", name, there)
        if len({base(name) for name in told}) < len(told):
            raise UserError(
                f"{self.name}: {', '.join(told)} are of one split: name each split once, or none, "
                "and what lacks is drawn"
            )
        if len(there) == 1 and not told:
            return Layout(WHOLE, None, None)
        rest = [name for name in there if name not in map(base, told)]
        evaluated = [name for name in EVALUATED if name in rest]
        test = self.test or (evaluated.pop(0) if evaluated else None)
        if test is None:
            raise UserError(
                f"{self.name} has no test split, found {', '.join(there)}: name one with `test`"
            )
        validation = self.validation or next(iter(evaluated), None)
        return Layout(test, validation, self.train or (TRAIN if TRAIN in rest else None))

    def _labels(self, parts: Mapping[str, Part]) -> tuple[np.ndarray, Sequence[str]]:
        told = listed(data_folder(), self.classes) if self.classes else ()
        return numbered(self.name, parts, told)


def _below(place: Path) -> Path:
    """Return a place in the data folder as an absolute path, if there is that folder."""
    try:
        return data_folder() / place
    except UserError:  # nor anything in it
        return place


def _there(name: str, reads: Reads) -> None:
    """Raise UserError for the first package that is missing."""
    for module, package in reads.packages.items():
        if find_spec(module) is None:
            raise UserError(f"{name} needs the package {package}: pip install {package}")


# what a command may call a dataset


@dataclass(frozen=True)
class Named:
    """A dataset as a track names it, with what it tells it; called: a short name."""

    dataset: str
    data: dict[str, Any]
    called: str


def named(text: str) -> Named:
    """Return the dataset that a command calls `text`: one of timm's, such as
    hfds/owner/name or wds/shards:test=all, with `data` of the track behind a colon, or
    else a folder of images. Paths begin in the folder that the command runs in.

    Raises UserError for `data` that is not written field=value.

    >>> named("hfds/owner/name:input_key=img").data
    {'name': 'hfds/owner/name', 'input_key': 'img'}
    """
    folder = Path(text).expanduser()
    prefix, _, rest = text.partition("/")
    if folder.is_dir() or prefix.lower() not in READS or not rest:
        return Named("image_folder", {"folder": str(folder.resolve())}, folder.resolve().name)
    rest, *said = OPTIONS.split(rest, maxsplit=1)
    pairs = [pair.partition("=") for one in said for pair in one.split(",")]
    if wrong := [field for field, _, value in pairs if not value]:
        raise UserError(f"images '{one_line(text)}': '{wrong[0]}' is not written field=value")
    data = {field: yaml.safe_load(value) for field, _, value in pairs}
    paths = {field: _absolute(data[field]) for field in PATHS if field in data}
    place = _absolute(rest) if READS[prefix.lower()].of_folders else rest
    return Named("timm_dataset", {"name": f"{prefix}/{place}", **data, **paths}, Path(rest).name)


def _absolute(named: str) -> str:
    """Return a path that there is as an absolute one, anything else as it is."""
    path = Path(named).expanduser()
    return str(path.resolve()) if path.exists() else named
