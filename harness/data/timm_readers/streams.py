"""Streams: shards of WebDataset, and TensorFlow's datasets."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from harness.data.timm_readers import Asked, Reads, below_data
from harness.data.timm_readers.images import STREAMED, Part, broken, kept, sha256_of
from harness.data.timm_readers.shards import Shards, shards

LOG = "timm.data.readers.reader_wds"
SKIPPED = re.compile(r"Handling webdataset error \((.*)\)\. Ignoring\.", re.DOTALL)


class Wds(Reads):
    """`wds/FOLDER` of shards (.tar), absolute or in the data folder, or `wds/NAME` with
    that folder as root. A track may name shards in place of a split:
    `test: x-{0000..0007}.tar`.
    """

    packages: ClassVar[Mapping[str, str]] = {"webdataset": "webdataset"}
    of_folders: ClassVar[bool] = True

    def places(self, asked: Asked) -> Iterable[Path]:
        """Return the folder, and where streams are kept."""
        return [Path(asked.root or asked.rest).expanduser(), Path(STREAMED)]

    def splits(self, asked: Asked) -> list[str]:
        """Return those that `shards` finds."""
        return list(_shards(asked).of)

    def has(self, split: str, splits: list[str]) -> bool:
        """Say whether `split` is of these, or names shards."""
        return split in splits or ".tar" in split

    def part(self, asked: Asked, split: str) -> Part:
        """Read one split to its end, and keep it; its state is that of its shards."""
        told, keys = _shards(asked), (asked.input_key, asked.target_key)
        with _heard():
            where = {"root": str(told.folder), "input_key": keys[0], "target_key": keys[1]}
            found = asked.read("wds/shards", told.as_timm_has_it(split), where)
        paths = tuple(told.folder / name for name in found.reader.split_info.filenames)
        said = (*keys, asked.skip_broken, sha256_of(paths))
        called = f"{asked.name} ({split})"
        part = kept(called, split, said, _whole(asked, split, found), {}, paths)
        left = f"samples of {split} that are broken are left out"
        return replace(part, notes=(left,)) if asked.skip_broken else part


def _shards(asked: Asked) -> Shards:
    return shards(below_data(asked.root or asked.rest))


def _whole(asked: Asked, split: str, found: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what timm finds in shards; raise BrokenImage for what it passes over, unless
    that is to be left out: it only logs it.
    """
    with _heard() as said:
        yield from asked.stream(split, found)
    skipped = [match[1] for line in said if (match := SKIPPED.fullmatch(line))]
    if skipped and not asked.skip_broken:
        what = f"{asked.name} ({split}), {len(skipped):,} of its samples,"
        raise broken(what, ValueError(skipped[0]))


class _Ear(logging.Handler):
    """Hears what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Hear one line."""
        self.said.append(record.getMessage())


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Give what timm's reader of shards logs meanwhile, which is not printed then."""
    ear, log = _Ear(), logging.getLogger(LOG)
    log.addHandler(ear)
    try:
        yield ear.said
    finally:
        log.removeHandler(ear)


class Tfds(Reads):
    """`tfds/NAME`, in the root or where TensorFlow has its datasets."""

    packages: ClassVar[Mapping[str, str]] = {
        "tensorflow_datasets": "tensorflow-datasets",
        "tensorflow": "tensorflow-cpu",
    }

    def places(self, asked: Asked) -> Iterable[Path]:
        """Return the root, and where streams are kept."""
        usual = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
        return [Path(asked.root or usual).expanduser(), Path(STREAMED)]

    def splits(self, asked: Asked) -> list[str]:
        """Return those that TensorFlow knows."""
        import tensorflow_datasets

        with asked.reading("its splits"):
            builder = tensorflow_datasets.builder(asked.rest, data_dir=asked.cache)
            if asked.download:
                builder.download_and_prepare()
            return list(builder.info.splits)

    def part(self, asked: Asked, split: str) -> Part:
        """Read one split to its end, and keep it; its state is that of its files."""
        keys = {"input_key": asked.input_key, "target_key": asked.target_key}
        told = {"root": asked.cache, "download": asked.download, **keys}
        found = asked.read(f"tfds/{asked.rest}", split, told)
        home = Path(str(found.reader.builder.data_dir))
        files = tuple(sorted(path for path in home.rglob("*") if path.is_file()))
        said = (asked.rest, *keys.values(), sha256_of(files))
        samples, classes = asked.stream(split, found), found.reader.class_to_idx
        return kept(f"{asked.name} ({split})", split, said, samples, classes)
