"""The committed code, which is what workers on other machines run."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from harness.run.paths import ROOT
from leaderboard.records.errors import UserError

CODE = ("harness", "leaderboard", "methods", "shrinkmark.py", "pyproject.toml")


def unpack_revision(into: Path) -> str:
    """Write the code as committed into the folder `into` and return its revision; raise
    UserError if the code at hand is another, or not in git.
    """
    changed = _git("status", "--porcelain", "--", *CODE).decode().splitlines()
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(
            f"workers run committed code, but {changed[0][3:]}{more} differs from the commit: "
            "commit or stash, then run again"
        )
    revision = _git("rev-parse", "HEAD").decode().strip()
    with tarfile.open(fileobj=io.BytesIO(_git("archive", revision, "--", *CODE))) as archive:
        archive.extractall(into, filter="data")
    return revision


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"workers run committed code, but {ROOT} is no git checkout with a commit: clone the "
            "repository and run it from there"
        ) from error
