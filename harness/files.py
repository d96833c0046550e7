"""Writing files so that a reader sees the old content or the new, never a part; reading them so that a damaged one is one line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from safetensors import SafetensorError

from harness.errors import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` through a temporary file beside `path`; raise UserError if the disk refuses."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}: free space or mend the permissions, then run again") from error


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON with a trailing newline."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file that holds a mapping; raise UserError if it is missing or damaged."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} not found: run the stage that writes it (`dvc repro`)") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}: mend that and run its stage again") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete it and run its stage again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a mapping: delete it and run its stage again")
    return content


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise UserError for what a reader of safetensors, zip files or mappings raises where `path` is missing, damaged or of another kind."""
    try:
        yield
    except (OSError, SafetensorError, BadZipFile, LookupError, TypeError, ValueError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else f"{type(error).__name__} {error}"  # safetensors gives no strerror
        raise UserError(f"{path} cannot be read ({' '.join(str(reason).split())[:160]}): delete it and run its stage again") from error
