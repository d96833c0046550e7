"""The manifest of a bundle: what `shrinkmark bundle` packs, and how a reader knows that
it is whole.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from leaderboard.records.schema import Frozen, Sha256

FORMAT = 2  # of bundles; a reader refuses any other
MANIFEST = "manifest.json"
NAME = "[a-z][a-z0-9_]*"


class Code(Frozen):
    """The commit that the code was at, and whether files of it were changed; "unknown"
    and null where git does not know.
    """

    revision: str
    dirty: bool | None


class PackedFile(Frozen):
    """A file of a bundle."""

    bytes: NonNegativeInt
    sha256: Sha256


class Format(Frozen):
    """What a manifest of any format says."""

    format: PositiveInt


class Manifest(Format):
    """manifest.json."""

    version: Annotated[str, Field(pattern=r"^v[0-9]+(\.[0-9]+)?$")]
    track: Annotated[str, Field(pattern=f"^{NAME}$")]
    code: Code
    packages: dict[str, str]  # versions by name
    machines: dict[str, tuple[str, ...]]  # fingerprints by hardware profile
    files: dict[str, PackedFile]


def layout(version: str, track: str) -> re.Pattern[str]:
    """Return what the names of a bundle's files must match: results lie in it as they
    lie in a checkout.
    """
    home, machine = rf"results/{re.escape(version)}/{re.escape(track)}", r"[0-9a-f]{1,64}\.json"
    of_track = (
        rf"track\.json|points/{NAME}\.json|predictions/{NAME}\.safetensors|"
        rf"costs/{machine}|latency/{NAME}/{machine}"
    )
    return re.compile(
        rf"manifest\.json|params\.yaml|tracks/{re.escape(track)}/track\.yaml|{home}/({of_track})"
    )
