"""One command at a time works on a track: two would clear away each other's
half-written points.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from leaderboard.records.errors import UserError

if TYPE_CHECKING:  # --help does not wait for it
    from harness.run.paths import Paths


@contextmanager
def alone(paths: Paths, track: str) -> Iterator[None]:
    """Hold the lock of `track` on this machine, which the system frees however a
    process ends; raise UserError if another process holds it.
    """
    name = hashlib.sha256(f"{os.getuid()} {paths.root.resolve()} {track}".encode()).hexdigest()[:16]
    # not beside the results, which a command that is refused leaves as they are
    file = Path(tempfile.gettempdir()) / f"shrinkmark-{name}.lock"
    try:
        with FileLock(file, timeout=0):
            yield
    except Timeout:
        raise UserError(
            f"another command works on track '{track}' in {paths.root.name}: wait until it has "
            "ended, then run this again"
        ) from None
