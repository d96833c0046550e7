"""Writing files so that a reader sees the old content or the new, never a part; reading
them so that a damaged one is one line.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

from pydantic import BaseModel
from safetensors import SafetensorError

from leaderboard.records.errors import UserError, one_line


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` in place of what `path` holds; raise UserError if the disk
    refuses.
    """
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file beside `path`, which takes its place once all is written;
    raise UserError if the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror or error}: free space or mend the permissions, "
            "then run again"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON with a trailing newline."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_record(path: Path, record: BaseModel) -> None:
    """Write a typed record as indented JSON."""
    write_json(path, record.model_dump(mode="json"))


def read_json(path: Path) -> Any:
    """Read a JSON file that holds a mapping; raise UserError if it is missing or
    damaged.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} not found: run the stage that writes it (`dvc repro`)") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}: mend that and run its stage again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not valid JSON ({error}): delete it and run its stage again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}, not a mapping: delete it and run its stage "
            "again"
        )
    return content


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise UserError for what a reader of safetensors, zip files or mappings raises
    where `path` is missing, damaged or of another kind.
    """
    try:
        yield
    except (OSError, SafetensorError, BadZipFile, LookupError, TypeError, ValueError) as error:
        # safetensors gives no strerror
        reason = (
            (error.strerror or error)
            if isinstance(error, OSError)
            else f"{type(error).__name__} {error}"
        )
        raise UserError(
            f"{path} cannot be read ({one_line(str(reason))[:160]}): delete it and run its stage "
            "again"
        ) from error


def write_folder(folder: Path, texts: Mapping[str, str]) -> None:
    """Write `texts` by file name into `folder` and remove every other file in it."""
    for name, text in texts.items():
        write_text(folder / name, text)
    try:
        for path in [
            path for path in folder.iterdir() if path.is_file() and path.name not in texts
        ]:
            path.unlink()
    except OSError as error:
        raise UserError(
            f"cannot remove what is stale in {folder}: {error.strerror or error}"
        ) from None


def put_between(page: str, name: str, text: str, where: Path) -> str:
    """Return `page` with `text` between the lines <!-- name:begin --> and <!-- name:end
    -->; raise UserError, which calls the page `where`, if it has no such lines.
    """
    begin, end = (f"<!-- {name}:{edge} -->" for edge in ("begin", "end"))
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{where} lacks the lines {begin} and {end}: add them where it belongs")
    return f"{before}{begin}\n{text}\n{end}{after}"


def read_text(path: Path) -> str:
    """Return the text of `path`, or raise UserError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: restore it with git") from None
