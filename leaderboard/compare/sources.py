"""Where the two results of a comparison lie: a folder, a version, or a git revision."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from leaderboard.records import version2
from leaderboard.records.errors import UserError, one_line
from leaderboard.records.outline import read_outline
from leaderboard.records.params import read_version
from leaderboard.records.results import find_tracks, of_version2


@dataclass(frozen=True)
class Side:
    """One version of results, and what it is called."""

    name: str
    results: Path
    version: str


@dataclass(frozen=True)
class Home:
    """Where names are looked up: the folder of results, and params.yaml for the version
    where several lie there.
    """

    results: Path
    params: Path


@contextmanager
def opened(name: str, home: Home) -> Iterator[Side]:
    """Yield what `name` means, the first that exists of: a folder of results, a version
    in the folder of results, a git revision REV or REV:version.

    A revision is unpacked into a temporary folder.
    """
    if Path(name).is_dir():
        yield _of_folder(name, Path(name), home)
    elif _holds_results(home.results / name):
        yield Side(name, home.results, name)
    else:
        with TemporaryDirectory() as folder:
            yield _of_revision(name, Path(folder), home)


def _holds_results(version_folder: Path) -> bool:
    return version_folder.is_dir() and bool(tracks_of(version_folder))


def tracks_of(version_folder: Path) -> list[str]:
    """Return the names of the tracks that a folder of one version holds, in whatever
    form, sorted.
    """
    if of_version2(version_folder):
        return version2.find_tracks(version_folder)
    return find_tracks(version_folder.parent, version_folder.name)


def _of_folder(name: str, folder: Path, home: Home) -> Side:
    if _holds_results(folder):
        return Side(name, folder.resolve().parent, folder.resolve().name)
    versions = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and _holds_results(path)
    )
    if not versions:
        raise UserError(
            f"folder {name} holds no results: neither <track>/track.json nor "
            "<version>/<track>/track.json lies in it"
        )
    chosen = versions[0] if len(versions) == 1 else read_outline(home.params).version
    if chosen not in versions:
        raise UserError(
            f"folder {name} holds the versions {', '.join(versions)}: name one, e.g. "
            f"{folder / versions[-1]}"
        )
    return Side(name, folder, chosen)


def _of_revision(name: str, folder: Path, home: Home) -> Side:
    """Unpack a revision's results of one version, by default that of its own
    params.yaml, into `folder`.
    """
    revision, _, version = name.partition(":")
    commit = (
        _git(
            home.results,
            name,
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            f"{revision}^{{commit}}",
        )
        .decode()
        .strip()
    )
    if not version:
        (folder / "params.yaml").write_bytes(
            _git(home.params, name, "show", f"{commit}:./{home.params.name}")
        )
        version = read_version(folder / "params.yaml")
    wanted = f"{home.results.name}/{version}"
    with tarfile.open(
        fileobj=io.BytesIO(_git(home.results, name, "archive", "--format=tar", commit, wanted))
    ) as archive:
        archive.extractall(folder, filter="data")
    return Side(
        f"{name} ({commit[:8]})" if commit[:7] not in name else name,
        folder / home.results.name,
        version,
    )


def _git(beside: Path, name: str, *arguments: str) -> bytes:
    """Return what git says in the folder of `beside`; raise UserError where it
    fails.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(beside.resolve().parent), *arguments],
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise UserError(f"cannot run git to look up '{name}': {error.strerror or error}") from None
    if done.returncode:
        said = (
            one_line(done.stderr.decode(errors="replace"))
            or f"git knows no revision '{name.partition(':')[0]}'"
        )
        what = (
            f"'{name}' is no folder of results, no version in {beside.parent}, and no git "
            f"revision with results: {said}"
        )
        raise UserError(f"{what}; results of the version of params.yaml come of `dvc repro`")
    return done.stdout
