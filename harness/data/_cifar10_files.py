"""CIFAR-10 as it lies on disk: the original archive, which is downloaded where there is
nothing, or parquet shards.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before torchvision: see methods/parts/torchvision.py)

import io
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import typer
from PIL import Image
from pyarrow import ArrowException, parquet, types
from torchvision.datasets import CIFAR10

from harness.data.folder import FOLDER_VARIABLE
from leaderboard.records.errors import UserError

COUNTS = {"train": 50_000, "test": 10_000}  # images
SHARDS = "cifar10"  # their folder in the data folder
# all that is read of the data folder, or downloaded into it
PLACES = (SHARDS, CIFAR10.base_folder, CIFAR10.filename)
TIMEOUT = 30.0  # seconds without an answer after which a download has failed


@dataclass(frozen=True)
class Part:
    """Some images of CIFAR-10, (N, 32, 32, 3) uint8, their labels, (N,) uint8, and how
    many of them are not the original pixels.
    """

    images: np.ndarray
    labels: np.ndarray
    from_jpeg: int


def read(folder: Path) -> tuple[str, Part, Part]:
    """Return title, train and test of CIFAR-10 from the first of archive, parquet
    shards and download that there is.
    """
    if (folder / CIFAR10.base_folder).is_dir():
        return _archive(folder)
    for place in (folder / SHARDS, folder / SHARDS / "plain_text"):
        if any(any(place.glob(f"{split}-*.parquet")) for split in COUNTS):
            return _parquet(place)
    _download(folder)
    return _archive(folder)


def _archive(folder: Path) -> tuple[str, Part, Part]:
    """Read the unpacked original archive, whose md5 torchvision checks."""
    try:
        found = [CIFAR10(folder, train=train, download=False) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        remedy = (
            f"delete this folder and run again to download it, or unpack {CIFAR10.filename} once "
            "more"
        )
        raise UserError(
            f"CIFAR-10: {folder / CIFAR10.base_folder} is incomplete or damaged ({_line(error)}): "
            f"{remedy}"
        ) from error
    train, test = (Part(part.data, np.array(part.targets, np.uint8), from_jpeg=0) for part in found)
    return "CIFAR-10 (original archive)", train, test


def _download(folder: Path) -> None:
    """Download and unpack the original archive; what is left of an interrupted download
    fails torchvision's md5 next time.
    """
    try:
        with _socket_timeout(TIMEOUT):
            CIFAR10(folder, download=True)
    except (OSError, HTTPException, RuntimeError) as error:
        layouts = (
            f"{CIFAR10.base_folder}/ (the archive, unpacked) or cifar10/*.parquet (of Hugging "
            "Face's uoft-cs/cifar10)"
        )
        remedy = f"put {layouts} there, or set {FOLDER_VARIABLE} to a folder that has one of them"
        raise UserError(
            f"CIFAR-10 not found in {folder} and not downloaded ({_line(error)}): {remedy}"
        ) from error
    typer.echo(f"CIFAR-10 downloaded to {folder}", err=True)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Let connections fail after `seconds` without an answer; torchvision has no option
    for it and would wait for ever.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _parquet(folder: Path) -> tuple[str, Part, Part]:
    """Read the shards of Hugging Face's uoft-cs/cifar10, or of a reconstruction that
    marks its images from JPEG by `original` = false.
    """
    paths = {split: _shards(folder, split) for split in COUNTS}
    train, test = (
        _joined(folder, split, [_shard(path) for path in paths[split]])
        for split in ("train", "test")
    )
    count = train.from_jpeg + test.from_jpeg
    return (
        f"CIFAR-10 (reconstruction, {count} images from JPEG)"
        if count
        else "CIFAR-10 (parquet copy)",
        train,
        test,
    )


def _shards(folder: Path, split: str) -> list[Path]:
    """Return the shards of `split` in order; raise UserError for a missing or a surplus
    one.
    """
    found = {path.name for path in folder.glob(f"{split}-*.parquet")}
    totals = [
        int(match[1])
        for name in found
        if (match := re.fullmatch(rf"{split}-\d{{5}}-of-(\d{{5}})\.parquet", name))
    ]
    wanted = [
        f"{split}-{index:05d}-of-{max(totals, default=1):05d}.parquet"
        for index in range(max(totals, default=1))
    ]
    if missing := [name for name in wanted if name not in found]:
        raise _wrong(
            folder / missing[0],
            f"is missing ({len(wanted) - len(missing)} of {len(wanted)} shards found)",
            "put it there",
        )
    if surplus := sorted(found - set(wanted)):
        raise _wrong(
            folder / surplus[0], f"is not one of the {len(wanted)} shards of {split}", "remove it"
        )
    return [folder / name for name in wanted]


def _joined(folder: Path, split: str, parts: list[Part]) -> Part:
    """Put the shards of `split` together; raise UserError unless they hold all of its
    images.
    """
    images, labels = (
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
    if len(images) != COUNTS[split]:
        raise _wrong(
            folder / f"{split}-*.parquet",
            f"hold {len(images):,} images instead of {COUNTS[split]:,}",
        )
    return Part(images, labels, sum(part.from_jpeg for part in parts))


def _shard(path: Path) -> Part:
    """Read one shard; raise UserError for a file, a column, an image or a label that is
    not what CIFAR-10 has.
    """
    table = _table(path)
    images, labels = table["img.bytes"].to_pylist(), table["label"].to_numpy()
    if len(wrong := np.flatnonzero(~((labels >= 0) & (labels <= 9)))):
        raise _wrong(
            path, f"has the label {labels[wrong[0]]} in row {wrong[0]} instead of one in 0..9"
        )
    pixels = np.empty((len(images), 32, 32, 3), np.uint8)
    for row, png in enumerate(images):
        pixels[row] = _pixels(png, path, row)
    from_jpeg = (
        len(table) - table["original"].to_pylist().count(True)
        if "original" in table.column_names
        else 0
    )
    return Part(pixels, labels.astype(np.uint8), from_jpeg)


def _table(path: Path) -> Any:
    """Return the Arrow table of a shard, with the columns img.bytes, label and perhaps
    original; raise UserError where it has others.
    """
    try:
        # the struct img becomes img.bytes and img.path
        table = parquet.ParquetFile(path).read().flatten()
    except (OSError, ArrowException) as error:
        raise _wrong(path, f"cannot be read ({_line(error)})") from error
    found = {field.name: field.type for field in table.schema}
    for name, fits in {
        "img.bytes": types.is_binary,
        "label": types.is_integer,
        "original": types.is_boolean,
    }.items():
        if not (fits(found[name]) if name in found else name == "original"):
            wanted = fits.__name__.removeprefix("is_")
            raise _wrong(
                path,
                f"has no {wanted} column {name} (found "
                f"{', '.join(f'{column}: {kind}' for column, kind in found.items())})",
            )
    return table


def _pixels(png: bytes | None, path: Path, row: int) -> np.ndarray:
    """Return the pixels (32, 32, 3) uint8 of a PNG; raise UserError naming `path` and
    `row` if it is anything else.
    """
    try:
        with Image.open(io.BytesIO(png or b""), formats=["PNG"]) as image:
            pixels, found = np.asarray(image), f"{image.width}x{image.height} {image.mode}"
    except (OSError, SyntaxError, ValueError) as error:
        raise _wrong(path, f"has no PNG that can be decoded in row {row}") from error
    if found != "32x32 RGB":
        raise _wrong(path, f"has an image of {found} in row {row} instead of 32x32 RGB")
    return pixels


def _wrong(
    path: Path, found: str, remedy: str = "replace it by the file of Hugging Face's uoft-cs/cifar10"
) -> UserError:
    return UserError(f"CIFAR-10: {path} {found}: {remedy}")


def _line(error: Exception) -> str:
    """Return the message of `error` on one line, with its type."""
    return " ".join(f"{type(error).__name__}: {error}".split())
