"""Which shards of WebDataset in a folder are which split."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.data._split_rules import EVALUATED, TRAIN
from leaderboard.records import files
from leaderboard.records.errors import UserError

INFO = ("_info.json", "info.json")  # timm's list of splits
ALL = "all"  # the split of shards that are of none


@dataclass(frozen=True)
class Shards:
    """The splits of a folder of shards. of: the shards of each, () where timm finds
    them in the folder's list itself.
    """

    folder: Path
    of: dict[str, tuple[str, ...]]

    def as_timm_has_it(self, split: str) -> str:
        """Return a split as timm's reader takes it: its name in the list, or shards."""
        return "::".join(self.of.get(split, ())) or split


def shards(folder: Path) -> Shards:
    """Return the splits of a folder: those of its list, or else by what the shards and
    their folders are called, or else one of all.

    Raises UserError if there is no such folder or it has no shards, and for a damaged
    list.
    """
    if not folder.is_dir():
        raise UserError(
            f"no folder of shards {folder}: correct its name, which is absolute or begins in the "
            "data folder"
        )
    for name in INFO:
        if (folder / name).is_file():
            return Shards(
                folder, dict.fromkeys(files.read_json(folder / name).get("splits", {}), ())
            )
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tar"))
    if not found:
        raise UserError(f"no shards (.tar) in {folder}: name the folder that they lie in")
    of: dict[str, tuple[str, ...]] = {}
    for shard in found:
        for name in {TRAIN, *EVALUATED} & set(re.split(r"[^a-z]+", shard.lower())):
            of[name] = (*of.get(name, ()), shard)
    return Shards(folder, of or {ALL: tuple(found)})
