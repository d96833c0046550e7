"""Text files that are either whole or absent, and folders that hold nothing stale."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from leaderboard.records.errors import ResultsError


def write_text(path: Path, text: str) -> None:
    """Write `text` as `write_bytes` writes."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` beside `path` and move it there in one step; a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ResultsError(f"cannot write {path}: {error.strerror or error}") from None


def write_folder(folder: Path, texts: Mapping[str, str]) -> None:
    """Write `texts` by file name into `folder` and remove every other file in it."""
    for name, text in texts.items():
        write_text(folder / name, text)
    try:
        for path in [path for path in folder.iterdir() if path.is_file() and path.name not in texts]:
            path.unlink()
    except OSError as error:
        raise ResultsError(f"cannot remove what is stale in {folder}: {error.strerror or error}") from None


def read_text(path: Path) -> str:
    """Return the text of `path`, or raise ResultsError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ResultsError(f"{path} is not UTF-8 text: restore it with git") from None
