"""Reading a stranger's bundle: nothing in it is run, unpickled or written where it
says; its names, sizes and hashes are checked before its contents.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from pydantic import ValidationError

from leaderboard.exchange.manifest import FORMAT, MANIFEST, Format, Manifest, layout
from leaderboard.records.errors import UserError, describe, one_line
from leaderboard.records.files import write_bytes
from leaderboard.records.results import track_folder

# a track of 500 points on 50,000 images takes 200 files and 60 MB, and packs to a fifth
MOST_FILES, MOST_BYTES, MOST_RATIO = 5_000, 2**29, 100
ENCRYPTED = 0x1  # of a zip entry's flags


@dataclass(frozen=True)
class Bundle:
    """A bundle that is whole: the sha256 of its file, its manifest, and the content of
    every other file by name.
    """

    sha256: str
    manifest: Manifest
    files: Mapping[str, bytes]

    def unpack(self, folder: Path) -> Path:
        """Write the files into `folder` and return the folder of the track's records in
        it.
        """
        for name, content in self.files.items():
            write_bytes(folder / name, content)
        return track_folder(folder / "results", self.manifest.version, self.manifest.track)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle; raise UserError for whatever `shrinkmark bundle` does not
    write.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise refused(
                path, f"it has {path.stat().st_size:,} bytes, at most {MOST_BYTES:,} are read"
            )
        content = _content(path)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError) as error:
        raise refused(path, f"it is no whole zip file ({one_line(str(error))[:80]})") from None
    manifest = _manifest(path, content)
    _check_files(path, manifest, content)
    return Bundle(sha256, manifest, {name: content[name] for name in manifest.files})


def refused(path: Path, why: str) -> UserError:
    """Return the error for a bundle that is not taken."""
    return UserError(
        f"{path.name} is refused: {why}: ask who made it to run `shrinkmark bundle` again"
    )


def _content(path: Path) -> dict[str, bytes]:
    """Return every file of the zip by name, after all that its directory says was
    checked.
    """
    with ZipFile(path) as archive:
        entries = archive.infolist()
        _check_entries(path, entries)
        return {entry.filename: archive.read(entry) for entry in entries}


def _check_entries(path: Path, entries: list[ZipInfo]) -> None:
    """Refuse names twice, links, locks, foreign compression and zip bombs;
    `archive.read` never gives more than the size that is checked here.
    """
    if len(entries) > MOST_FILES:
        raise refused(path, f"it holds {len(entries)} files, at most {MOST_FILES} are read")
    twice = next(
        (name for name, count in Counter(entry.filename for entry in entries).items() if count > 1),
        None,
    )
    if twice is not None:
        raise refused(path, f"it holds '{one_line(twice)}' twice")
    for entry in entries:
        name = one_line(entry.filename)
        if (
            entry.filename != entry.orig_filename
            or Path(entry.filename).is_absolute()
            or ".." in entry.filename
            or entry.is_dir()
        ):
            raise refused(path, f"'{name}' is no name of a file in a bundle")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise refused(path, f"'{name}' is a link")
        if entry.flag_bits & ENCRYPTED or entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise refused(path, f"'{name}' is encrypted or packed in a way that bundles never are")
        if entry.file_size > MOST_RATIO * max(entry.compress_size, 1):
            raise refused(path, f"'{name}' unpacks to more than {MOST_RATIO} times its size")
    total = sum(entry.file_size for entry in entries)
    if total > MOST_BYTES:
        raise refused(path, f"it unpacks to {total:,} bytes, at most {MOST_BYTES:,} are read")


def _manifest(path: Path, content: Mapping[str, bytes]) -> Manifest:
    if MANIFEST not in content:
        raise refused(path, f"it holds no {MANIFEST}")
    try:
        found = Format.model_validate_json(content[MANIFEST]).format
        if found != FORMAT:
            raise UserError(
                f"{path.name} is a bundle of format {found}, this reads format {FORMAT}: use the "
                "shrinkmark that it was made with"
            )
        return Manifest.model_validate_json(content[MANIFEST])
    except ValidationError as error:
        raise refused(path, f"{MANIFEST}: {describe(error)}") from None


def _check_files(path: Path, manifest: Manifest, content: Mapping[str, bytes]) -> None:
    """Refuse names outside the layout, and files that the manifest does not describe to
    the byte.
    """
    allowed = layout(manifest.version, manifest.track)
    strange = next(
        (name for name in sorted({*content, *manifest.files}) if not allowed.fullmatch(name)), None
    )
    if strange is not None:
        raise refused(
            path,
            f"'{one_line(strange)}' has no place in a bundle of track '{manifest.track}', version "
            f"'{manifest.version}'",
        )
    odd = sorted({*content} ^ {MANIFEST, *manifest.files})
    if odd:
        raise refused(path, f"its manifest and its files disagree about '{odd[0]}'")
    for name, about in manifest.files.items():
        if (len(content[name]), hashlib.sha256(content[name]).hexdigest()) != (
            about.bytes,
            about.sha256,
        ):
            raise refused(
                path, f"'{name}' is not the file that its manifest describes (size or sha256)"
            )
    timed = {
        tuple(name.removesuffix(".json").split("/")[-2:]) for name in content if "/latency/" in name
    }
    if timed != {
        (hardware, machine)
        for hardware, machines in manifest.machines.items()
        for machine in machines
    }:
        raise refused(path, "its manifest names other machines than its latency files")
