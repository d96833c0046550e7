"""A folder of images as a dataset: train/, val/ and test/ that hold a folder a class,
one folder of such class folders, or images without labels.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import platformdirs

from harness.data import Dataset, Source
from harness.data._split_rules import (
    EVALUATED,
    TRAIN,
    WHOLE,
    Layout,
    gaps,
    listed,
    some,
    split,
    title,
)
from harness.data.folder import FOLDER_VARIABLE, data_folder
from harness.data.image_files import ImageFiles, content
from leaderboard.records import files
from leaderboard.records.errors import UserError, one_line, unknown

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")  # timm's, which has no WebP; in either case
UNLABELLED = ""  # the class of an image that has none
HASHES = "hashes.json"  # of files, in the user's cache


@dataclass(frozen=True)
class Found:
    """The images of a folder with their fixed split; nothing is decoded yet.

    labels: (N,) int64 into `classes`, -1 where an image has none; train, validation,
    test: int64 indices into both, sorted and disjoint.
    """

    title: str  # "folder NAME, n images in k classes"
    files: ImageFiles
    labels: np.ndarray
    classes: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...]  # what was decided, a line each


@dataclass(frozen=True)
class ImageFolder(Dataset):
    """A folder of images, absolute or in the data folder.

    classes: all classes in the order of their labels, or a file in the folder, or
    absolute, that lists them, one a line (timm's class map); without it they are the
    folders found, sorted.
    answers: a file of what dense says of images without labels, which is then their
    label; those that it says nothing of are left out.
    validation: the subfolder that is the validation split.
    skip_broken: whether files that are no images are left out, not an error. title: how
    results name it, in place of the folder's name.
    """

    folder: str
    classes: str | tuple[str, ...] | None = None
    validation: str | None = None
    answers: str | None = None
    skip_broken: bool = False
    title: str | None = None

    def load(self) -> Source:
        """List, label, split and hash the images; raise UserError as `found` does, where
        a file cannot be read, and where images have no labels.
        """
        found = self.found()
        taken = np.concatenate([found.train, found.validation, found.test])
        if (found.labels[taken] < 0).any():
            raise UserError(
                f"{found.title}: accuracy needs labels: put the images into one folder a class"
            )
        hashes = content(found.files.paths, platformdirs.user_cache_path("shrinkmark") / HASHES)
        return Source(
            title=self.title or found.title,
            images=found.files,
            labels=found.labels,
            train=found.train,
            validation=found.validation,
            test=found.test,
            sha256={"files": hashlib.sha256(" ".join(hashes).encode()).hexdigest()},
            classes=len(found.classes),
            notes=found.notes,
        )

    def class_names(self) -> Sequence[str]:
        """Return the list of classes, or the folders found."""
        return self.found().classes

    def found(self) -> Found:
        """List the images, label and split them.

        Raises UserError where there is no such folder, subfolder or list of classes,
        the list lacks a class folder, the folder of a split has no images, or there is
        no test split.
        """
        root = _root(self.folder)
        layout = _layout(root, self.validation)
        parts = [_part(root, folder) for folder in layout.names]
        classes = _classes(root, self.classes, parts)
        rows = sorted((path, name, part.folder) for part in parts for path, name in part.rows)
        label_of = {name: label for label, name in enumerate(classes)}
        labels = np.array([label_of.get(name, -1) for _, name, _ in rows], np.int64)
        which = split(layout, [folder for *_, folder in rows], labels, "/")
        if not len(which.test):
            raise UserError(f"{root} has no test images: a single one cannot be split, add more")
        order = [] if self.classes else _order(classes)
        said = [*order, *(note for part in parts for note in part.notes)]
        found = Found(
            title=title(f"folder {one_line(root.name)}", labels, len(classes)),
            files=ImageFiles(tuple(root / path for path, *_ in rows)),
            labels=labels,
            classes=classes,
            train=which.train,
            validation=which.validation,
            test=which.test,
            notes=(*which.notes, *said, *gaps(which, labels, classes)),
        )
        return found if self.answers is None else _answered(found, root, Path(self.answers))

    def closed(self) -> Iterable[Path]:
        """Return the folder of the test images, which is the whole one if they are
        drawn from it, what links in it lead to, and dense's answers.
        """
        try:
            root = _root(self.folder)
            part = _part(root, _layout(root, self.validation).test)
        except UserError:  # `found` raises it too: there are no test images
            return [Path(self.folder).expanduser()]
        folders = {path.rpartition("/")[0] for path, _ in part.rows}
        said = [Path(self.answers)] if self.answers is not None else []
        links = _behind_links([root / name for name in sorted(folders)])
        return [root / part.folder, *said, *links]


# what lies in the folder


@dataclass(frozen=True)
class _Part:
    """What one subfolder holds: class folders, and for each image its path from the
    root on, and its class.
    """

    folder: str
    classes: tuple[str, ...]
    rows: list[tuple[str, str]]
    notes: tuple[str, ...]


def _root(folder: str) -> Path:
    """Return the folder as an absolute path; raise UserError if there is none."""
    named = Path(folder).expanduser()
    root = named if named.is_absolute() else (data_folder() / named).absolute()
    if not root.is_dir():
        raise UserError(
            f"no folder of images {root}: correct its name, which is absolute or begins in the "
            f"folder that {FOLDER_VARIABLE} names"
        )
    return root


def _layout(root: Path, validation: str | None) -> Layout:
    """Return which subfolder is which split; raise UserError if `validation` is none of
    them, or none is left for test.
    """
    names, _ = _entries(root)
    if validation is not None and validation not in names:
        raise unknown(f"validation folder of {root}", validation, names)
    if validation == TRAIN:
        raise UserError(f"validation is {TRAIN}/, the training split: name another of {root}")
    evaluated = [name for name in EVALUATED if name in names and name != validation]
    # beside others, train/ with images in it is the class of trains
    train = TRAIN in names and bool(
        validation or evaluated or names == [TRAIN] or _entries(root / TRAIN)[0]
    )
    if not (train or validation or evaluated):
        return Layout(WHOLE, None, None)
    if not evaluated:
        whole = f", or name {root / TRAIN} as the folder, to have that split" if train else ""
        raise UserError(
            f"{root} has no test images: add test/ or val/ beside {validation or TRAIN}/{whole}"
        )
    named = [validation] if validation else evaluated[1:2]
    return Layout(evaluated[0], named[0] if named else None, TRAIN if train else None)


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the images in `folder`, sorted; a link is
    what it leads to, and one that leads nowhere a file.
    """
    try:
        with os.scandir(folder) as entries:
            seen = [(one.name, one.is_dir()) for one in entries if not one.name.startswith(".")]
    except OSError as error:
        raise UserError(
            f"cannot list {folder}: {error.strerror}: mend its permissions, then run again"
        ) from error
    return (
        sorted(name for name, is_folder in seen if is_folder),
        sorted(
            name for name, is_folder in seen if not is_folder and name.lower().endswith(EXTENSIONS)
        ),
    )


def _part(root: Path, folder: str) -> _Part:
    """List the images of a subfolder, without labels where it has no class folders that
    hold any; raise UserError if there are none.
    """
    names, beside = _entries(root / folder)
    inside = {name: _entries(root / folder / name) for name in names}
    begin = _begin(folder)
    rows = [
        (f"{begin}{name}/{image}", name) for name, (_, images) in inside.items() for image in images
    ]
    if rows:
        return _Part(folder, tuple(names), rows, tuple(_oddities(begin, beside, inside)))
    if not beside:
        raise UserError(
            f"no images ({', '.join(EXTENSIONS)}) in {root / folder}: put one folder a class into "
            "it, or images without labels"
        )
    return _Part(folder, (), [(f"{begin}{image}", UNLABELLED) for image in beside], ())


def _begin(folder: str) -> str:
    """Return how the paths of what lies in a subfolder begin."""
    return f"{folder}/" if folder else ""


def _oddities(
    begin: str, beside: list[str], inside: dict[str, tuple[list[str], list[str]]]
) -> Iterator[str]:
    """Yield a line on each kind of what is not read in class folders or beside them."""
    if empty := [f"{begin}{name}" for name, (_, images) in inside.items() if not images]:
        yield f"class folders without images: {some(empty)}"
    if beside:
        yield f"images beside class folders are not read: {some([begin + one for one in beside])}"
    deeper = [f"{begin}{name}/{one}" for name, (more, _) in inside.items() for one in more]
    if deeper:
        yield f"folders in class folders are not read: {some(deeper)}"


def _behind_links(folders: list[Path]) -> Iterator[Path]:
    """Yield what links among `folders`, and among the images in them, lead to."""
    for folder in folders:
        if folder.is_symlink():
            yield folder.resolve()
        with os.scandir(folder) as entries:
            links = [one.name for one in entries if one.is_symlink()]
        yield from (
            (folder / name).resolve() for name in links if name.lower().endswith(EXTENSIONS)
        )


# classes


def _classes(
    root: Path, given: str | tuple[str, ...] | None, parts: list[_Part]
) -> tuple[str, ...]:
    """Return the classes in the order of their labels; raise UserError if a list of
    them is given and lacks a class folder.
    """
    if given is None:
        return tuple(sorted({name for part in parts for name in part.classes}))
    found = listed(root, given) if isinstance(given, str) else given
    file = given if isinstance(given, str) else "the list of classes"
    strange = {name for part in parts for name in part.classes}.difference(found)
    if strange:
        first = next(
            _begin(part.folder) + name for part in parts for name in part.classes if name in strange
        )
        more = f" (and {len(strange) - 1:,} more)" if len(strange) > 1 else ""
        raise UserError(
            f"class folder '{one_line(first)}'{more} is not in {file}, which has {len(found):,} "
            f"lines like '{one_line(found[0])[:40]}': name folders as in that list, or give the "
            "list that has their names"
        )
    return found


def _order(classes: Sequence[str]) -> list[str]:
    """Say so if timm would sort these classes otherwise: numbers by their value."""
    by_value = sorted(
        classes,
        key=lambda name: [
            int(run) if run.isdecimal() else run for run in re.split(r"(\d+)", name.lower())
        ],
    )
    if by_value == list(classes):
        return []
    name, other = next(pair for pair in zip(classes, by_value, strict=True) if pair[0] != pair[1])
    return [
        f"classes are sorted as text, '{one_line(name)}' where a model trained by timm may have "
        f"'{one_line(other)}': a list of classes says otherwise"
    ]


# labels


def _answered(found: Found, root: Path, file: Path) -> Found:
    """Label images by a file of answers, {path from the root on: class}, and leave out
    those that it says nothing of.
    """
    answers = files.read_json(file)["answers"]
    with files.reading(file):
        said = [answers.get(str(path.relative_to(root)), -1) for path in found.files.paths]
        labels = np.array(said, np.int64)

    train, validation, test = (
        which[labels[which] >= 0] for which in (found.train, found.validation, found.test)
    )
    note = "the images have no labels: accuracy is agreement with what dense answers"
    return replace(
        found,
        labels=labels,
        train=train,
        validation=validation,
        test=test,
        notes=(*found.notes, note),
    )
