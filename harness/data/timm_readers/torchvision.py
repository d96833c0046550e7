"""torchvision's datasets, which come with what is installed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.data._split_rules import EVALUATED, TRAIN
from harness.data.image_files import ImageFiles
from harness.data.timm_readers import Asked, Reads, below_data
from harness.data.timm_readers.images import Items, Part, content, of_pixels, sha256_of
from leaderboard.records.errors import UserError

OF_FOLDERS = ("image_folder", "folder")
OF_FILES = ("imagenet", "places365", "inaturalist", "inat")  # and what is evaluated is val
WHOLE = "."  # timm's split of a folder that has none


class Torch(Reads):
    """`torch/NAME`, in the root, or in `torch/NAME` of the data folder. Where images are
    files they are read, and hashed, as those of a folder are.
    """

    def places(self, asked: Asked) -> Iterable[Path]:
        """Return the root."""
        return [Path(asked.root or asked.name.lower()).expanduser()]

    def splits(self, asked: Asked) -> list[str]:
        """Return train and test or val, or the subfolders that there are."""
        kind, root = asked.rest.lower(), _root(asked)
        if kind not in OF_FOLDERS:
            return [TRAIN, "val" if kind in OF_FILES else "test"]
        if not root.is_dir():
            raise UserError(f"{asked.name}: there is no folder {root}: name one with `root`")
        return [name for name in (TRAIN, *EVALUATED) if (root / name).is_dir()] or [WHOLE]

    def part(self, asked: Asked, split: str) -> Part:
        """Read one split, all pixels of it where torchvision has them in memory."""
        told = {"root": str(_root(asked)), "download": asked.download}
        found = asked.read(asked.name, split, told)
        classes = tuple(map(_name, getattr(found, "classes", None) or _categories(found)))
        if files := _files(found):
            paths = tuple(Path(path) for path, _ in files)
            return Part(ImageFiles(paths), [label for _, label in files], classes, sha256_of(paths))
        images, rows = Items((), found), range(len(found))
        sha256 = content(of_pixels(images.decode(row)) for row in rows)
        return Part(images, [found[row][1] for row in rows], classes, sha256)


def _root(asked: Asked) -> Path:
    return below_data(asked.root or asked.name.lower())


def _name(name: str | tuple[str, ...]) -> str:
    """Return the name of a class, of which ImageNet has several."""
    return name if isinstance(name, str) else ", ".join(name)


def _categories(found: Any) -> list[str]:
    """Return iNaturalist's names of species, none of another dataset."""
    return list(getattr(found, "all_categories", ()))


def _files(found: Any) -> list[tuple[str, int]]:
    """Return path and label of each image, nothing of a dataset that holds pixels."""
    if categories := _categories(found):
        home = Path(found.root)
        return [(str(home / categories[label] / name), label) for label, name in found.index]
    return list(getattr(found, "samples", None) or getattr(found, "imgs", None) or [])
