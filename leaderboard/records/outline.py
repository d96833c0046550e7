"""params.yaml in outline, which is all that the tables need of it: the version, and the
order in which things are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from leaderboard.records.errors import UserError
from leaderboard.records.params import load_params


@dataclass(frozen=True)
class Outline:
    """The version, and tracks, methods with chains, and hardware in the order in which
    they are shown.

    untimed, batches: the hardware under whose name results are shown that nothing has
    timed yet, and its batch sizes.
    """

    version: str | None = None
    tracks: Sequence[str] = ()
    methods: Sequence[str] = ()
    hardware: Sequence[str] = ()
    untimed: str = "unmeasured"
    batches: Sequence[int] = (1,)

    def chosen_version(self, asked: str | None) -> str:
        """Return the version asked for, else that of params.yaml."""
        version = asked or self.version
        if version is None:
            raise UserError("no version: there is no params.yaml that names one; give --version v1")
        return version


def read_outline(path: Path) -> Outline:
    """Read params.yaml; without the file nothing is ordered and the version must be
    given.
    """
    if not path.exists():
        return Outline()
    params = load_params(path)
    outline = Outline(
        params.version, tuple(params.shown), tuple(params.plans), tuple(params.profiles)
    )
    if not params.hardware:
        return outline
    first = next(iter(params.hardware))
    return replace(outline, untimed=first, batches=tuple(params.hardware[first].batches))


def in_order(names: list[str], order: Sequence[str]) -> list[str]:
    """Return `names` as `order` has them, the others after them by name."""
    return sorted(
        names, key=lambda name: (order.index(name) if name in order else len(order), name)
    )
