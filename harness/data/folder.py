"""The folder of what is not in the repository: datasets, reference weights, and what a
node of a cluster has fetched.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from leaderboard.records.errors import UserError

FOLDER_VARIABLE = "SHRINKMARK_DATA"


def data_folder() -> Path:
    """Return the folder that SHRINKMARK_DATA names, or else the user's cache.

    Raises UserError if the variable names no folder; the cache need not exist yet.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if not named:
        return platformdirs.user_cache_path("shrinkmark")
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"{FOLDER_VARIABLE} names '{folder}', which is not a folder: create it or correct the "
            "variable"
        )
    return folder
