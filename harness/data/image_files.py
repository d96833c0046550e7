"""Images that stay files: each is decoded when it is asked for, as timm decodes it, and
known by the hash of its content.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from leaderboard.records import files
from leaderboard.records.errors import UserError, one_line

LEAVE_OUT = "replace it, or leave such files out with --skip-broken (skip_broken: true)"
# what PIL's decoders raise at bytes that make no sense, beside OSError
SENSELESS = (
    Image.DecompressionBombError,
    ArithmeticError,
    EOFError,
    LookupError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class BrokenImage(UserError):
    """A file that is no image, or one that is cut off."""


@dataclass(frozen=True)
class ImageFiles:
    """Images as the files that they lie in."""

    paths: tuple[Path, ...]

    def decode(self, index: int) -> Image.Image:
        """Return an image in RGB, pixel by pixel as timm's ImageDataset reads it: not
        turned as its EXIF orientation says.

        Raises BrokenImage naming the file if it is no image or is cut off before its
        last pixel, and another UserError if it cannot be read at all.
        """
        path = self.paths[index]
        # PIL loads its formats when it first meets them, and a thread that opens a file
        # meanwhile may take it for no image; the order is the one they have in timm
        Image.preinit()
        Image.init()
        try:
            with path.open("rb") as file, Image.open(file) as image:
                return image.convert("RGB")
        except OSError as error:
            if error.errno is not None:  # of the system, not of the decoder
                raise _unreadable(path, error) from error
            raise _broken(path, error) from error
        except SENSELESS as error:
            raise _broken(path, error) from error


def content(paths: Sequence[Path], cache: Path) -> tuple[str, ...]:
    """Return the sha256 of each file.

    A file is hashed once: the JSON file `cache` remembers it by its path, size and time
    of change, also if the hashing is interrupted. Raises UserError if a file cannot be
    read, or the cache is damaged or cannot be written.
    """
    names = [str(path.absolute()) for path in paths]
    stamps = {name: _stamp(Path(name)) for name in names}
    known = _remembered(cache)
    new = [name for name, stamp in stamps.items() if known.get(name, ())[:2] != stamp]
    hashed: dict[str, tuple[int, int, str]] = {}
    try:
        with _threads() as pool:
            for name, sha in zip(new, pool.map(_sha256, map(Path, new)), strict=True):
                hashed[name] = (*stamps[name], sha)
    finally:
        known |= hashed
        if hashed:
            files.write_text(cache, json.dumps(known) + "\n")
    return tuple(known[name][2] for name in names)


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads, which drops what it has not begun when it is left by an
    error or by Ctrl-C.
    """
    pool = ThreadPoolExecutor()
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _remembered(cache: Path) -> dict[str, tuple[int, int, str]]:
    """Return size in bytes, time of change in ns and sha256 of each path of a cache."""
    if not cache.exists():
        return {}
    entries = files.read_json(cache)
    with files.reading(cache):
        return {
            name: (int(size), int(changed), str(sha))
            for name, (size, changed, sha) in entries.items()
        }


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return status.st_size, status.st_mtime_ns


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _broken(path: Path, error: Exception) -> BrokenImage:
    # whose own text would name the file once more
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "of no known format" if unknown else one_line(str(error)) or type(error).__name__
    return BrokenImage(f"{path} is no image or is cut off ({reason}): {LEAVE_OUT}")


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be read: {error.strerror or error}: mend that or remove it, then run again"
    )
