"""The bar of a long command: how far it is, when it will end, and what it is at. The
variable TQDM_DISABLE=1, which `--quiet` sets, switches it off.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from statistics import mean
from typing import Any, TypeVar

from tqdm import tqdm

Job = TypeVar("Job")
FORMAT = "{desc}: {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}"
# seconds between two lines: a file or a log keeps them all
OFTEN, SELDOM = 0.5, 30.0
WIDTH = 60  # of what it is at


class Progress:
    """A bar over named jobs, which knows how long each took when it was last run: its
    percentage and its end are of time and not of number.
    """

    def __init__(self, bar: tqdm[Any], unit: str, seconds: Mapping[str, float]) -> None:
        self._bar, self._unit, self._seconds = bar, unit, seconds
        self._ended, self._running = 0, dict[str, None]()
        self.at()

    def started(self, jobs: Iterable[Job], name_of: Callable[[Job], str]) -> Iterator[Job]:
        """Yield the jobs as they are asked for, and show each as running from then on."""
        for job in jobs:
            self.begun(name_of(job))
            yield job

    def begun(self, name: str) -> None:
        """Show a job as running."""
        self._running[name] = None
        self.at()

    def ended(self, name: str) -> None:
        """Move the bar by the job that has ended."""
        self._running.pop(name, None)
        self._ended += 1
        self.at()
        self._bar.update(self._seconds[name])

    def at(self, doing: str = "") -> None:
        """Show what it is at: the jobs that run, or what is said here."""
        said = f"{self._ended} of {len(self._seconds)} {self._unit}s"
        doing = doing or ", ".join(self._running)
        shown = doing if len(doing) <= WIDTH else f"{doing[: WIDTH - 1]}…"
        self._bar.set_postfix_str(f"{said}, at {shown}" if shown else said, refresh=False)


@contextmanager
def progress(
    title: str, unit: str, names: Iterable[str], known: Mapping[str, float] | None = None
) -> Iterator[Progress]:
    """Yield the bar of jobs by name; known: the seconds that some of them took when they
    were last run, the others count as their mean.
    """
    known, names = known or {}, list(names)
    usual = mean([known[name] for name in names if name in known] or [1.0])
    seconds = {name: known.get(name, usual) or usual for name in names}
    bar: tqdm[Any] = tqdm(
        total=sum(seconds.values()),
        desc=title,
        bar_format=FORMAT,
        smoothing=0,  # the rate since the beginning
        mininterval=OFTEN if sys.stderr.isatty() else SELDOM,
        dynamic_ncols=True,
    )
    with bar:
        yield Progress(bar, unit, seconds)
