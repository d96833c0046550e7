"""The tables of version 2 as they were committed: copied and linked, neither read nor
built again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from leaderboard.records.errors import UserError
from leaderboard.site.names import page_name

VERSION = "v2"
# of the repository, the last at which its results, code and params.yaml stood together
REVISION = "0d93926"
ENDINGS = (".md", ".csv")


@dataclass(frozen=True)
class ArchivedFile:
    """A file of a track's tables, and its path below the site."""

    track: str
    name: str
    page: str
    content: bytes


@dataclass(frozen=True)
class Archive:
    """All that is kept of an earlier version."""

    files: tuple[ArchivedFile, ...]
    version: str = VERSION
    revision: str = REVISION

    @property
    def tracks(self) -> dict[str, list[ArchivedFile]]:
        """Return the files by track."""
        return {
            track: [file for file in self.files if file.track == track]
            for track in dict.fromkeys(file.track for file in self.files)
        }


def read_archive(results: Path) -> Archive | None:
    """Return the Markdown and CSV files in <results>/v2/tables/<track>/, or None where
    there are none.
    """
    paths = sorted(
        path
        for path in (results / VERSION / "tables").glob("*/*")
        if path.suffix in ENDINGS and path.is_file()
    )
    return Archive(tuple(_file(path) for path in paths)) if paths else None


def _file(path: Path) -> ArchivedFile:
    track = path.parent.name
    page = PurePosixPath(
        "archive", VERSION, page_name(track), f"{page_name(path.stem)}{path.suffix}"
    )
    try:
        return ArchivedFile(track, path.name, page.as_posix(), path.read_bytes())
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}: restore it with git"
        ) from None
