"""The data of a track as its workers read it: one folder for each transform of its
models, made once.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from harness.data import Source, dataset, splits
from harness.data.image_files import ImageFiles
from harness.data.splits import LEARN, TEST, BrokenFiles, TrackData, drawn
from harness.data.transform import Transform, transforms
from harness.run.progress import progress
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import TrackParams
from leaderboard.records.results import read_record
from leaderboard.records.schema import Images

MADE = "made.json"  # says what a folder holds
SCRATCH = "scratch-"  # how a folder begins in which pixels lie while they are made


class Made(BaseModel):
    """What the data in a folder are: of which content, and the sha256 of both files."""

    model_config = ConfigDict(frozen=True)
    content_hash: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class Prepared:
    """What the record of a track says of its data."""

    title: str
    sources: dict[str, str]
    content_hash: str
    images: Images
    test_labels: tuple[int, ...]
    notes: tuple[str, ...]


def prepare(track: TrackParams, home: Path) -> Prepared:
    """Write the track's data into folders of `home`, one for each transform, and remove
    others; files are decoded where they were not yet.

    Raises UserError where the dataset cannot be had, or holds too few images or files
    that are no images.
    """
    told = dataset(track.dataset, track.data)
    source = told.load()
    wanted = transforms(track)
    _tidy(home, set(wanted))
    while True:
        try:
            return _prepared(source, track, home, wanted)
        except BrokenFiles as broken:
            if not told.skip_broken:
                raise
            source = source.without(broken.indices)


def _prepared(
    source: Source, track: TrackParams, home: Path, wanted: dict[str, Transform]
) -> Prepared:
    which = drawn(source, track)
    content_hash = ""
    for key, transform in wanted.items():
        if isinstance(source.images, ImageFiles):
            content_hash = splits.content_hash(source, track)
            if _stands(home / key, content_hash):
                continue
        with _loaded(source, track, home, transform) as data:
            content_hash = content_hash or splits.content_hash(source, track, data)
            splits.save(data, home / key)
        _note(home / key, content_hash)
    counts = {name: len(getattr(which, name)) for name in Images.model_fields}
    return Prepared(
        source.title,
        source.sha256,
        content_hash,
        Images(**counts),
        tuple(source.labels[which.test].tolist()),
        source.notes,
    )


@contextmanager
def _loaded(
    source: Source, track: TrackParams, home: Path, transform: Transform
) -> Iterator[TrackData]:
    """Yield the data as one transform makes them, while their pixels lie in a folder
    that is removed afterwards.
    """
    if not isinstance(source.images, ImageFiles):
        yield splits.load(source, track, transform, home)
        return
    home.mkdir(parents=True, exist_ok=True)
    size = "x".join(map(str, transform.size))
    count = sum(len(part) for part in vars(drawn(source, track)).values())
    with (
        tempfile.TemporaryDirectory(prefix=SCRATCH, dir=home) as scratch,
        progress(f"{track.dataset}: images at {size}", "image", map(str, range(count))) as bar,
    ):
        yield splits.load(
            source, track, transform, Path(scratch), lambda done: bar.ended(str(done))
        )


def _stands(folder: Path, content_hash: str) -> bool:
    try:
        made = read_record(folder / MADE, Made)
        return made.content_hash == content_hash and all(
            (folder / name).is_file() for name in (LEARN, TEST)
        )
    except UserError:
        return False


def _note(folder: Path, content_hash: str) -> None:
    hashes = {name: _sha256(folder / name) for name in (LEARN, TEST)}
    files.write_record(folder / MADE, Made(content_hash=content_hash, sha256=hashes))


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _tidy(home: Path, wanted: set[str]) -> None:
    """Remove what no model takes any more, and what a killed run has left."""
    for folder in home.iterdir() if home.is_dir() else ():
        if folder.name not in wanted:
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
