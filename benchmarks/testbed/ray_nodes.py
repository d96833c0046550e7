"""Ray nodes as real processes of this machine, each with a cache of its own, that can
be killed one by one; and sweeps on them.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from harness.cluster.revision import CODE
from harness.run.paths import ROOT

STORE = 100 * 2**20  # bytes of each node's object store
OF_RAY = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # made here for the clusters of this process
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's 15 would let points starve beside anything else on a small machine
    "RAY_worker_niceness": "0",
}


def environment(checkout: Path, **more: str) -> dict[str, str]:
    """Return what a process needs to run the code of `checkout` and to talk to these
    clusters.
    """
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "RAY_", "COV_"))
    }
    return ours | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", **OF_RAY, **more}


def commit(folder: Path) -> Path:
    """Make of the code at hand a git checkout in the new folder `folder`, all
    committed, and return that.
    """
    folder.mkdir()
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    (folder / ".gitignore").write_text("__pycache__/\n")
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        [*author, "commit", "--quiet", "-m", "The code at hand"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@dataclass
class Node:
    """A node: the process that holds it, and its cache, which is in the environment of
    all of its processes.
    """

    process: subprocess.Popen[bytes]
    cache: Path

    @property
    def processes(self) -> list[psutil.Process]:
        """Return the processes of the node."""
        return [
            process for process in psutil.process_iter() if _cache_of(process) == str(self.cache)
        ]

    @property
    def commands(self) -> list[list[str]]:
        """Return the command lines of its processes."""
        return [_command_of(process) for process in self.processes]

    @property
    def points(self) -> list[list[str]]:
        """Return the command lines of the processes in which its points run, and of the
        servers that they are forked from.
        """
        return [command for command in self.commands if "forkserver" in " ".join(command)]

    def crash(self) -> None:
        """Kill the node's raylet alone, with SIGKILL; Ray has to end the rest."""
        for process in self.processes:
            if _name_of(process) == "raylet":
                process.kill()

    def end(self) -> None:
        """Kill all processes of the node."""
        while alive := [process for process in self.processes if process.pid != os.getpid()]:
            for process in alive:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(alive, 5)
        self.process.wait()


@dataclass
class Cluster:
    """A head without processors for points, and the nodes added to it; Ray's workers
    run the code of the driver, not that of `checkout`.
    """

    checkout: Path
    # short: sockets lie in it
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ray")))
    nodes: list[Node] = field(default_factory=list)

    def __enter__(self) -> Cluster:
        port, client = free_ports()
        self.address, self.outside = f"127.0.0.1:{port}", f"ray://127.0.0.1:{client}"
        ports = (f"--port={port}", f"--ray-client-server-port={client}")
        self.head = self.start(
            "head", ["--head", *ports, "--num-cpus=0", "--include-dashboard=false"]
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.end_nodes()
        self.head.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(
        self, name: str, resources: dict[str, float] | None = None, path: Sequence[Path] = ()
    ) -> Node:
        """Add a node with one processor; `path`: folders that its Python looks into
        first.
        """
        found = os.pathsep.join([*map(str, path), str(self.checkout)])
        options = [
            f"--address={self.address}",
            "--num-cpus=1",
            f"--resources={json.dumps(resources or {})}",
        ]
        self.nodes.append(self.start(name, options, PYTHONPATH=found))
        return self.nodes[-1]

    def start(self, name: str, options: Sequence[str], **more: str) -> Node:
        """Start a node and wait until it is up."""
        cache, log = (
            Path(tempfile.mkdtemp(prefix=name, dir=self.folder)),
            self.folder / f"{name}.log",
        )
        # as on a machine of its own: a node that dies clears away the working folders
        # in it
        own = f"--temp-dir={cache}"
        small = [
            f"--object-store-memory={STORE}",
            "--disable-usage-stats",
            "--include-log-monitor=false",
        ]
        command = [
            str(Path(sys.executable).parent / "ray"),
            "start",
            "--block",
            own,
            *small,
            *options,
        ]
        surroundings = environment(self.checkout, **{"SHRINKMARK_DATA": str(cache), **more})
        with log.open("w") as output:
            process = subprocess.Popen(
                command, env=surroundings, stdout=output, stderr=output, start_new_session=True
            )
        wait_until(
            lambda: "To terminate the Ray runtime" in log.read_text() or process.poll() is not None,
            180,
        )
        assert process.poll() is None, log.read_text()
        return Node(process, cache)

    def end_nodes(self) -> None:
        """End all nodes but the head."""
        while self.nodes:
            self.nodes.pop().end()


def driver(
    checkout: Path,
    folder: Path,
    address: str | None,
    *options: str,
    program: Sequence[str] = ("-m", "shrinkmark"),
    stderr: int | IO[str] = subprocess.PIPE,
    **more: str,
) -> subprocess.Popen[str]:
    """Start a sweep of the experiment in `folder` by the code of `checkout`, in the
    local pool if `address` is None; `more`: its environment.
    """
    there = [] if address is None else ["--address", address, "--remote", str(folder / "shared")]
    command = [
        sys.executable,
        *program,
        "sweep",
        "digits",
        "--params",
        str(folder / "params.yaml"),
        *there,
        *options,
    ]
    return subprocess.Popen(
        command,
        cwd=checkout,
        env=environment(checkout, **more),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def free_ports() -> tuple[int, int]:
    """Return two ports that nothing listens on."""
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def wait_until(true: Callable[[], object], seconds: float) -> None:
    """Wait until `true()` holds; raise AssertionError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited longer than {seconds} s"
        time.sleep(0.05)


def _cache_of(process: psutil.Process) -> str | None:
    try:
        return (
            process.environ().get("SHRINKMARK_DATA")
            if process.status() != psutil.STATUS_ZOMBIE
            else None
        )
    except psutil.Error:
        return None


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""
