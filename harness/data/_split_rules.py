"""Which split is which, what is drawn where one is missing, and what is said of it: the
same for folders of images and for what timm reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from harness.data import SPLIT_SEED
from leaderboard.records import files
from leaderboard.records.errors import UserError, one_line

TRAIN = "train"
EVALUATED = ("test", "val", "validation")  # the first that there is is test, the next validation
WHOLE = ""  # the name of a split that all are drawn from
NAMED = 5  # names that a line spells out


@dataclass(frozen=True)
class Layout:
    """What each split is called where it lies; all are drawn from one that is test if
    that is called WHOLE.
    """

    test: str
    validation: str | None
    train: str | None

    @property
    def names(self) -> list[str]:
        """Return what there is to read, in the order train, validation, test."""
        return [name for name in (self.train, self.validation, self.test) if name is not None]


@dataclass(frozen=True)
class Split:
    """Indices of the images of each split, sorted and disjoint, and what was decided, a
    line each.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    notes: list[str]


def split(layout: Layout, inside: Sequence[str], labels: np.ndarray, ending: str) -> Split:
    """Return the split of images that lie in the splits called `inside`, with a label
    each, -1 for none; `ending`: what notes write behind such a name.
    """
    if layout.test == WHOLE:
        return _whole(labels)
    train, validation, test = (
        np.flatnonzero([one == folder for one in inside])
        for folder in (layout.train, layout.validation, layout.test)
    )
    said = [_named("test", layout.test + ending, labels[test])]
    if layout.validation is not None:
        said.append(_named("validation", layout.validation + ending, labels[validation]))
    else:
        train, validation, how = _validation(train, 0.1, labels)
        said.append(f"validation is {how}")
    no_train = f"there is no {TRAIN}{ending}: the training split is empty"
    said.append(_named("train", layout.train + ending, labels[train]) if layout.train else no_train)
    return Split(np.sort(train), np.sort(validation), np.sort(test), said)


def _whole(labels: np.ndarray) -> Split:
    """Split all images into 60 / 10 / 30 %, as digits are, or 70 / 0 / 30 % where they
    have no labels.
    """
    everything = np.arange(len(labels))
    if len(labels) == 1:
        return Split(everything, everything[:0], everything[:0], [])
    rest, test, how = _cut(everything, 0.3, labels)
    train, validation, how_too = _validation(rest, 1 / 7, labels)
    said = [f"test is 30 % of all images, {how}", f"validation is {how_too}", "train is the rest"]
    return Split(np.sort(train), np.sort(validation), np.sort(test), said)


def _validation(
    which: np.ndarray, share: float, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """Draw a share of the images for training, if these are two or more that have
    labels; return the rest, the drawn, and how.
    """
    if len(which) < 2:
        return which, which[:0], f"empty: {len(which)} training images are too few"
    if labels[which[0]] < 0:
        return which, which[:0], "empty: the training images have no labels"
    rest, drawn, how = _cut(which, share, labels)
    return rest, drawn, f"{len(drawn):,} of {len(which):,} training images, {how}"


def _cut(which: np.ndarray, share: float, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Draw a share of two or more images, stratified by label where that is possible;
    return the rest, the drawn, and how.
    """
    # here, for it takes a second to import, which no worker needs
    from sklearn.model_selection import train_test_split

    obstacle = _obstacle(labels[which], share)
    rest, drawn = train_test_split(
        which,
        test_size=share,
        stratify=None if obstacle else labels[which],
        random_state=SPLIT_SEED,
    )
    how = f"not stratified: {obstacle}" if obstacle else "stratified by class"
    return rest, drawn, f"drawn with seed {SPLIT_SEED}, {how}"


def _obstacle(labels: np.ndarray, share: float) -> str:
    """Say why a share of such images cannot be stratified; nothing if it can."""
    _, counts = np.unique(labels, return_counts=True)
    drawn = ceil(share * len(labels))
    if labels[0] < 0:
        return "they have no labels"
    if counts.min() < 2:
        return f"{(counts < 2).sum():,} of {len(counts):,} classes have a single image"
    if min(drawn, len(labels) - drawn) < len(counts):
        return f"{drawn:,} of {len(labels):,} images are too few for {len(counts):,} classes"
    return ""


# what is said


def title(name: str, labels: np.ndarray, classes: int) -> str:
    """Return how results name images that are found under `name`."""
    kinds = f"in {classes:,} classes" if labels.max() >= 0 else "without labels"
    return f"{name}, {len(labels):,} images {kinds}"


def gaps(split: Split, labels: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Name the classes that a split has no images of; of one without labels say
    nothing.
    """
    return [
        f"{name} has no images of {len(missing):,} of {len(classes):,} classes: "
        f"{some([classes[label] for label in missing])}"
        for name, which in (
            ("train", split.train),
            ("validation", split.validation),
            ("test", split.test),
        )
        if len(which)
        and labels[which[0]] >= 0
        and len(missing := np.setdiff1d(np.arange(len(classes)), labels[which]))
    ]


def _named(split: str, called: str, labels: np.ndarray) -> str:
    without_labels = ", whose images have no labels" if labels.max() < 0 else ""
    return f"{split} is {called}{without_labels}"


def some(names: Sequence[str]) -> str:
    """Spell out the first names, and say how many more there are."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return one_line(", ".join(names[:NAMED])) + more


# the list of classes


def listed(root: Path, file: str) -> tuple[str, ...]:
    """Read a list of classes, one a line; raise UserError if there is none, or a line
    is empty or there twice.
    """
    path = root / Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"no list of classes {path}: give a text file with one class a line")
    lines = [line.strip() for line in files.read_text(path).removeprefix("\ufeff").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if not all(lines) or not lines:
        raise UserError(
            f"{path} has nothing in line {[*lines, ''].index('') + 1}: it needs one class a line, "
            "in the order of their labels"
        )
    if len(set(lines)) < len(lines):
        twice = next(name for place, name in enumerate(lines) if name in lines[:place])
        raise UserError(
            f"{path} has '{one_line(twice)}' twice: it needs one class a line, each once"
        )
    return tuple(lines)
