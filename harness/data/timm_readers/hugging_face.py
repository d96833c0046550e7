"""Datasets of Hugging Face's hub, and folders of parquet files or of images as its
library reads them: as tables, or as streams.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar

from huggingface_hub import constants

from harness.data.folder import data_folder
from harness.data.timm_readers import Asked, Reads
from harness.data.timm_readers.images import STREAMED, Encoded, Part, content, kept, remembered
from leaderboard.records.errors import UserError


class Hfds(Reads):
    """`hfds/OWNER/NAME`, or `hfds/FOLDER`, absolute or in the data folder or in that
    which the command runs in; `root` is Hugging Face's cache in place of the usual one.
    What is not there is downloaded.
    """

    packages: ClassVar[Mapping[str, str]] = {"datasets": "datasets"}
    of_folders: ClassVar[bool] = True

    def places(self, asked: Asked) -> Iterable[Path]:
        """Return all of Hugging Face's cache that holds datasets, and the folder."""
        yield Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME) / "datasets"))
        yield Path(constants.HF_XET_CACHE)
        yield from Path(constants.HF_HUB_CACHE).glob("datasets--*")
        if asked.root is not None:
            yield Path(asked.root).expanduser()
        if (folder := _folder(asked)) is not None:
            yield folder

    def splits(self, asked: Asked) -> list[str]:
        """Return the splits of the first configuration."""
        builder = _builder(asked)
        return [str(name) for name in builder.info.splits or builder.config.data_files or ()]

    def part(self, asked: Asked, split: str) -> Part:
        """Read one split. Its hash is that of its encoded images, made once for each
        state that the library knows: a revision, or the times at which files changed.
        """
        keys = _columns(asked, split)
        reader = asked.read(f"hfds/{_place(asked)}", split, {"root": asked.cache, **keys}).reader
        # whose folders the library names by such a state
        identity = f"{reader.dataset.cache_files} {split} {keys['input_key']}"
        closed = [place.resolve() for place in self.places(asked)]
        return Part(
            Encoded((), f"{asked.name} ({split})", partial(_opened, reader)),
            list(reader.dataset[keys["target_key"]]),
            tuple(reader.class_to_idx),
            remembered(identity, lambda: content(_digests(asked, split, reader, closed))),
        )


class Hfids(Hfds):
    """`hfids/OWNER/NAME` and `hfids/FOLDER`: the same as a stream, of which Hugging
    Face's cache keeps nothing without `download`. Photographs are turned as their EXIF
    says, as they are not by `hfds`.
    """

    def places(self, asked: Asked) -> Iterable[Path]:
        """Return those of `hfds`, and where streams are kept."""
        yield from super().places(asked)
        yield Path(STREAMED)

    def part(self, asked: Asked, split: str) -> Part:
        """Read one split to its end, and keep it."""
        told = {
            "root": asked.cache,
            "download": asked.download,
            "num_samples": 1,  # must be told, and is for training alone
            "input_key": asked.input_key,
            "target_key": asked.target_key,
        }
        found = asked.read(f"hfids/{_place(asked)}", split, told)
        said = (asked.input_key, asked.target_key, _place(asked), _state(found.reader.builder))
        samples, classes = asked.stream(split, found), found.reader.class_to_idx
        return kept(f"{asked.name} ({split})", split, said, samples, classes)


def _opened(reader: Any, row: int) -> IO[bytes]:
    file: IO[bytes] = reader[row][0]
    return file


def _folder(asked: Asked) -> Path | None:
    """Return the folder that the name is, if it is one."""
    rest = Path(asked.rest).expanduser()
    try:
        places = [data_folder() / rest, rest]
    except UserError:  # there is no data folder
        places = [rest]
    return next((place.absolute() for place in places if place.is_dir()), None)


def _place(asked: Asked) -> str:
    """Return the name as the library takes it."""
    return str(_folder(asked) or asked.rest)


def _builder(asked: Asked) -> Any:
    """Return what knows of a dataset before it is read."""
    import datasets

    with asked.reading("its splits"):
        return datasets.load_dataset_builder(_place(asked), cache_dir=asked.cache)


def _state(builder: Any) -> str:
    return f"{builder.config_id} {builder.hash} {builder.info.version}"


def _columns(asked: Asked, split: str) -> dict[str, str]:
    """Return the columns of images and of labels: those that the track says, or called
    as timm expects, or the only ones of their kind; raise UserError if there is none.
    """
    import datasets

    with asked.reading(split):
        table = datasets.load_dataset(_place(asked), split=split, cache_dir=asked.cache)
    chosen = {}
    for key, told, usual, kind in (
        ("input_key", asked.input_key, "image", datasets.Image),
        ("target_key", asked.target_key, "label", datasets.ClassLabel),
    ):
        fit = [name for name, feature in table.features.items() if isinstance(feature, kind)]
        only = fit[0] if usual not in table.column_names and len(fit) == 1 else usual
        chosen[key] = told or only
        if chosen[key] not in table.column_names:
            raise UserError(
                f"{asked.name} ({split}) has no column '{chosen[key]}', found "
                f"{', '.join(table.column_names)}: name one with `{key}`"
            )
    return chosen


def _digests(asked: Asked, split: str, reader: Any, closed: list[Path]) -> Iterator[bytes]:
    """Yield the sha256 of each encoded image; raise UserError for one that cannot be
    read, or is a file outside of `closed`, which methods could read.
    """
    for row in range(len(reader)):
        with asked.reading(f"{split}, image {row}"):
            file = _opened(reader, row)
        named = getattr(file, "name", None)  # of what lies beside the table
        if named and not any(Path(named).resolve().is_relative_to(one) for one in closed):
            raise UserError(
                f"{asked.name} ({split}) names an image outside of it, {named}: give a table that "
                "holds its images, or the folder that they lie in"
            )
        with file, asked.reading(f"{split}, image {row}"):
            digest = hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]
        yield digest
