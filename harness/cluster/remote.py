"""A folder or object store that every node of a cluster reaches, through fsspec: inputs
go to the nodes by their hash, artefacts come back as one file each.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import fsspec
from dvc.config import Config
from filelock import FileLock

from leaderboard.records.errors import UserError, one_line, unknown

INPUTS, POINTS = "inputs", "points"
WHOLE = ".tar"  # how the name of an artefact ends; a half has more behind it


@dataclass(frozen=True)
class Remote:
    """The place `url`; every method raises UserError if it refuses."""

    url: str

    @property
    def inputs(self) -> Path | None:
        """Return the folder of all inputs, the test splits among them, if it is one
        that this machine has or mounts.
        """
        path = self.url.removeprefix("file://")
        return None if "://" in path else Path(path) / INPUTS

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in `folder`, none if there is no such
        folder.
        """
        with self._asked() as (system, root):
            return (
                sorted(Path(name).name for name in system.ls(f"{root}/{folder}", detail=False))
                if system.exists(f"{root}/{folder}")
                else []
            )

    def put(self, name: str, file: Path) -> None:
        """Copy `file` to `name`, which is seen whole or not at all."""
        with self._asked() as (system, root):
            system.makedirs(f"{root}/{Path(name).parent}", exist_ok=True)
            temporary = f"{root}/{name}.{uuid4().hex}"
            system.put_file(str(file), temporary)
            system.mv(temporary, f"{root}/{name}")

    def get(self, name: str, sha256: str, target: Path) -> None:
        """Copy `name` to `target`, which is seen whole or not at all; raise UserError
        if its content is not that of `sha256`.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
        try:
            with self._asked() as (system, root):
                system.get_file(f"{root}/{name}", str(temporary))
            if sha256_of(temporary) != sha256:
                raise UserError(
                    f"{name} of {self.url} is not what was put there, its hash differs: delete it "
                    "and run again"
                )
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove the file `name`."""
        with self._asked() as (system, root):
            system.rm_file(f"{root}/{name}")

    @contextmanager
    def _asked(self) -> Iterator[tuple[fsspec.AbstractFileSystem, str]]:
        try:
            yield fsspec.core.url_to_fs(self.url)
        except Exception as error:  # each kind of store has errors of its own
            text = one_line(str(error))[:160]
            raise UserError(
                f"the remote {self.url} refuses: {type(error).__name__}: {text}: mend it or name "
                "another with --remote"
            ) from error


@dataclass(frozen=True)
class Input:
    """A file that points need, by its content; `folder` and `name` are where a node
    keeps it.
    """

    folder: str
    name: str
    bytes: int
    sha256: str


def remote_of(named: str | None, root: Path) -> Remote:
    """Return the remote that is `named`: a URL, a folder, or one of DVC's in the
    checkout `root` (None: its default); raise UserError if there is none.
    """
    if named is not None and ("://" in named or "/" in named):
        return Remote(named if "://" in named else str(Path(named).resolve()))
    config = Config(dvc_dir=str(root / ".dvc"))
    name = named or config["core"].get("remote")
    if name is None:
        raise UserError(
            "artefacts need a place that every node reaches: name a folder or URL with --remote, "
            "or set DVC's default with `dvc remote default`"
        )
    if name not in config["remote"]:
        raise unknown("remote of DVC", name, config["remote"])
    return Remote(f"{config['remote'][name]['url'].rstrip('/')}/shrinkmark")


def offer(remote: Remote, folder: str, file: Path) -> Input:
    """Put `file` into the remote unless its content is there, and return what a node
    fetches it by.
    """
    item = Input(folder, file.name, file.stat().st_size, sha256_of(file))
    if item.sha256 not in remote.names(INPUTS):
        remote.put(f"{INPUTS}/{item.sha256}", file)
    return item


def fetched(remote: Remote, cache: Path, item: Input) -> Path:
    """Return the file of `item` in the node's `cache`, fetched unless it lies there
    whole; processes of a node wait for the one that fetches.
    """
    target = cache / item.folder / item.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists() or target.stat().st_size != item.bytes:
            remote.get(f"{INPUTS}/{item.sha256}", item.sha256, target)
    return target


def send(remote: Remote, name: str, folder: Path) -> str:
    """Put the files of `folder` into the remote as one, called `name` and its hash, and
    return what it is called.
    """
    with tempfile.TemporaryDirectory() as scratch:
        packed = Path(scratch) / "packed.tar"
        with tarfile.open(packed, "w") as archive:
            for file in sorted(folder.iterdir()):
                archive.add(file, file.name)
        called = f"{name}.{sha256_of(packed)}{WHOLE}"
        remote.put(f"{POINTS}/{called}", packed)
        return called


def receive(remote: Remote, called: str, folder: Path) -> None:
    """Unpack into `folder` what `send` has put there, its hash checked; raise UserError
    if it cannot be had or the disk is full.
    """
    with tempfile.TemporaryDirectory() as scratch:
        packed = Path(scratch) / "packed.tar"
        remote.get(f"{POINTS}/{called}", called.split(".")[1], packed)
        try:
            with tarfile.open(packed) as archive:
                archive.extractall(folder, filter="data")
        except OSError as error:
            raise UserError(
                f"cannot write {folder}: {error.strerror}: free space or mend the permissions, "
                "then run again"
            ) from error


def sha256_of(file: Path) -> str:
    """Return the hash of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
