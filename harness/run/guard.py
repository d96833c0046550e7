"""What the process of a method cannot do, whatever names it makes up: read a file that
test images are in, use TCP, or signal another process.

The kernel sees to it (Landlock: Linux 5.13 or later, TCP from 6.7 and signals from 6.12
on), for this process and all that it starts, whatever opens the file. Elsewhere there
are only the rules on a method's text (`harness/run/code/rules.py`), and that no test image
is in the process's memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import landlockpy
from landlockpy import AccessFS, Ruleset, Scope

from harness import data
from harness.data import splits
from harness.point.worker import Job, compress_point
from harness.run import registry


def guarded_compress(job: Job, closed: Path | None = None) -> dict[str, Any]:
    """Run the method in this process, which from then on cannot do what the module
    says; `closed`: one more folder that it cannot read.
    """
    if landlockpy.supported():
        close([*with_test_images(job), *([closed] if closed else [])])
    return unguarded_compress(job)


def unguarded_compress(job: Job) -> dict[str, Any]:
    """Import the method, and do `compress_point`."""
    return compress_point(job, registry.configure(job.method, job.setting))


def with_test_images(job: Job) -> Iterator[Path]:
    """Yield the test splits of all tracks beside the job's, DVC's cache of them, and
    what the datasets' own test images lie in.
    """
    # artefacts/TRACK/data/TRANSFORM, or on a node of a cluster data/HASH/TRANSFORM
    home = job.data.parent
    yield from {
        *home.parent.glob(f"*/*/{splits.TEST}"),
        *home.parents[1].glob(f"*/{home.name}/*/{splits.TEST}"),
    }
    yield home.parents[2] / ".dvc" / "cache"
    yield from data.closed(job.track.dataset, job.track.data)


def close(paths: Iterable[Path]) -> None:
    """Have the kernel refuse this thread, and all that it starts, to read the files and
    folders `paths`; nor may it use TCP or signal other processes.
    """
    closed = {path.resolve() for path in paths}
    with Ruleset(
        handled_fs=AccessFS.READ_FILE, scoped=Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET
    ) as rules:
        for path in _beside(Path("/"), closed):
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to open
                rules.allow_path(path, AccessFS.READ_FILE)
        rules.restrict()


def _beside(folder: Path, closed: set[Path]) -> Iterator[Path]:
    """Yield what lies beside `closed` and the folders on the way to them, from `folder`
    down: rules only allow, and a rule for a folder holds for all in it.
    """
    on_the_way = {parent for path in closed for parent in path.parents}
    try:
        inside = list(folder.iterdir())
    except PermissionError:
        inside = [path for path in on_the_way if path.parent == folder]
    for path in inside:
        if path in on_the_way:
            yield from _beside(path, closed)
        elif path not in closed and not path.is_symlink():
            yield path
