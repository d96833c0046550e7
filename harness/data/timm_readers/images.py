"""Images that timm's readers hand out, by index: encoded ones of a table or of a file
that they are kept in, items of torchvision's datasets, and all splits in one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import IO, Any

import platformdirs
import pyarrow
from PIL import Image

from harness.data.folder import data_folder
from harness.data.image_files import LEAVE_OUT, SENSELESS, BrokenImage, ImageFiles
from harness.data.image_files import content as content_of_files
from leaderboard.records import files
from leaderboard.records.errors import UserError, one_line

FILE_HASHES = "hashes.json"  # of files, in the user's cache
HASHES = "timm_hashes.json"  # of what a library keeps
STREAMED = "streamed"  # the folder of the data folder that streams are kept in
BATCH = 64  # images that are in memory while a stream is kept
KEPT = pyarrow.schema(
    {"image": pyarrow.binary(), "label": pyarrow.string(), "sha256": pyarrow.binary(32)}
)


@dataclass(frozen=True)
class Part:
    """One split as timm reads it.

    labels: as the reader gives them, one an image; classes: their names in the order of
    the labels, () where it knows none. sha256: of its images, see `content`. notes: what
    is to be said of it.
    """

    images: ImageFiles
    labels: list[Any]
    classes: tuple[str, ...]
    sha256: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoded(ImageFiles):
    """Images as files that `opened` opens by index; called: what errors name them by."""

    called: str
    opened: Callable[[int], IO[bytes]]

    def decode(self, index: int) -> Image.Image:
        """Return an image in RGB, as timm reads it; raise as `ImageFiles.decode` does."""
        name = f"{self.called}, image {index},"
        Image.preinit()
        Image.init()
        try:
            with self.opened(index) as file, Image.open(file) as image:
                return image.convert("RGB")
        except OSError as error:
            if error.errno is not None:  # of the system, not of the decoder
                raise UserError(f"{name} cannot be read: {one_line(str(error))}") from error
            raise broken(name, error) from error
        except SENSELESS as error:
            raise broken(name, error) from error


@dataclass(frozen=True)
class Items(ImageFiles):
    """Images of a dataset whose items are pairs of a decoded one and its label."""

    dataset: Any

    def decode(self, index: int) -> Image.Image:
        """Return an image in RGB."""
        image: Image.Image = self.dataset[index][0]
        return image.convert("RGB")


@dataclass(frozen=True)
class Joined(ImageFiles):
    """The images of several, one after another; ends: the number up to each."""

    parts: tuple[ImageFiles, ...]
    ends: tuple[int, ...]

    def decode(self, index: int) -> Image.Image:
        """Return an image in RGB; raise as its part does."""
        part = bisect_right(self.ends, index)
        return self.parts[part].decode(index - (self.ends[part - 1] if part else 0))


def joined(parts: Iterable[Part]) -> Joined:
    """Return the images of all parts in their order."""
    parts = list(parts)
    return Joined(
        paths=tuple(path for part in parts for path in part.images.paths),
        parts=tuple(part.images for part in parts),
        ends=tuple(accumulate(len(part.labels) for part in parts)),
    )


def broken(name: str, error: Exception) -> BrokenImage:
    """Return the error for an image that is none."""
    reason = one_line(str(error)) or type(error).__name__
    return BrokenImage(f"{name} is no image or is cut off ({reason}): {LEAVE_OUT}")


# what the hash of a split is


def content(digests: Iterable[bytes]) -> str:
    """Return the sha256 of the sha256 of each image, in their order: of its file where
    the reader gives that, else of its size and pixels.
    """
    sha = hashlib.sha256()
    for digest in digests:
        sha.update(digest)
    return sha.hexdigest()


def of_pixels(image: Image.Image) -> bytes:
    """Return the sha256 of size and pixels of an image in RGB."""
    return hashlib.sha256(f"{image.width}x{image.height} ".encode() + image.tobytes()).digest()


def remembered(identity: str, made: Callable[[], str]) -> str:
    """Return a hash that is made once for what a library says it has: the user's cache
    keeps it by `identity`. Raises UserError if the cache is damaged.
    """
    cache = platformdirs.user_cache_path("shrinkmark") / HASHES
    known = dict(files.read_json(cache)) if cache.exists() else {}
    if identity not in known:
        known[identity] = made()
        files.write_text(cache, json.dumps(known) + "\n")
    return str(known[identity])


def sha256_of(paths: tuple[Path, ...]) -> str:
    """Return the sha256 of the sha256 of files, each of which is hashed once."""
    hashes = content_of_files(paths, platformdirs.user_cache_path("shrinkmark") / FILE_HASHES)
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


# streams, which have no index


def kept(
    called: str,
    split: str,
    state: tuple[object, ...],
    samples: Iterable[tuple[Image.Image, Any]],
    classes: Iterable[str],
    paths: tuple[Path, ...] = (),
) -> Part:
    """Return what a stream holds: it is read once, in its order, into a file of the data
    folder, which is mapped; `state` tells its content from another.

    Raises UserError if the disk refuses, or the file is damaged.
    """
    known = hashlib.sha256(repr((split, state)).encode()).hexdigest()
    file = data_folder() / STREAMED / f"{known[:16]}.arrow"
    if not file.exists():
        _keep(file, samples)
    with files.reading(file):
        table = pyarrow.ipc.open_file(pyarrow.memory_map(str(file))).read_all()
        images, labels = table["image"], [json.loads(one) for one in table["label"].to_pylist()]
        opened = Encoded(paths, called, lambda index: io.BytesIO(images[index].as_py()))
        return Part(opened, labels, tuple(classes), content(table["sha256"].to_pylist()))


def _keep(file: Path, samples: Iterable[tuple[Image.Image, Any]]) -> None:
    """Write pairs of a decoded image and its label into an Arrow file, each image as a
    PNG, which loses nothing; nothing is left where it ends before its time.
    """
    rest = iter(samples)
    with (
        _scratch(file.parent) as scratch,
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
    ):
        with files.replacing(scratch / file.name) as out, pyarrow.ipc.new_file(out, KEPT) as writer:
            while batch := list(islice(rest, BATCH)):
                rows = list(pool.map(_row, batch))
                writer.write_batch(pyarrow.RecordBatch.from_pylist(rows, KEPT))
        (scratch / file.name).replace(file)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give a folder in `folder`, made if need be, that is removed afterwards; raise
    UserError if the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix="scratch-", dir=folder)
    except OSError as error:
        raise UserError(
            f"cannot write into {folder}: {error.strerror or error}: mend its permissions"
        ) from error
    with scratch as made:
        yield Path(made)


def _row(sample: tuple[Image.Image, Any]) -> dict[str, Any]:
    """Return a row of the Arrow file; labels of NumPy become Python's."""
    image, label, png = sample[0].convert("RGB"), sample[1], io.BytesIO()
    image.save(png, "PNG", compress_level=1)
    plain = label.tolist() if hasattr(label, "tolist") else label
    return {"image": png.getvalue(), "label": json.dumps(plain), "sha256": of_pixels(image)}
