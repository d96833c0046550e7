"""A sweep on a Ray cluster from end to end, for the command line; Ray is needed from here on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from harness.cluster.remote import remote_of
from harness.latency import runtimes
from harness.run.paths import Paths
from leaderboard.records.errors import UserError
from leaderboard.records.params import Params


@dataclass(frozen=True)
class TaskShape:
    """What a point asks of a node: processors and GPUs, fractions too, and GiB of memory (0: it is not counted)."""

    cpus: float
    gpus: float
    gibibytes: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs, {self.gpus:g} GPUs and {self.gibibytes:g} GiB"

    @property
    def without_gpus(self) -> TaskShape:
        """Return the same without GPUs."""
        return replace(self, gpus=0)

    @property
    def resources(self) -> dict[str, float]:
        """Return what Ray calls them."""
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": self.gibibytes * 2**30}

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of a Ray task, which Ray does not try again: it does not count what was lost for memory."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": int(self.gibibytes * 2**30) or None, "max_retries": 0}


@dataclass(frozen=True)
class Asked:
    """What is to be done: the points of `methods` (none: all) on `tracks`, then latency on `hardware`, through the place `remote`."""

    tracks: Sequence[str]
    methods: Sequence[str]
    hardware: Sequence[str]
    remote: str | None
    shape: TaskShape


def sweep_at(address: str, params: Params, paths: Paths, asked: Asked) -> Iterator[str]:
    """Join the cluster at `address`, do what is asked there, and yield a line about each part as it ends."""
    if find_spec("ray") is None:
        raise UserError("Ray is not installed: pip install -e '.[ray]'")
    from harness.cluster.join import joined, machine_of
    from harness.cluster.latency import measure_on_cluster
    from harness.cluster.sweep import sweep_on_cluster

    runtimes.check({name: params.profile(name) for name in asked.hardware})
    remote = remote_of(asked.remote, paths.root)
    with joined(address, params.run.workers) as revision:
        machines = {name: machine_of(name) for name in asked.hardware}
        done = sweep_on_cluster(params, paths, asked.tracks, asked.methods, remote, asked.shape)
        yield f"{', '.join(asked.tracks)} at revision {revision[:10]}: {done}"
        for track in asked.tracks:
            for hardware, machine in machines.items():
                yield measure_on_cluster(params, paths, track, hardware, remote, machine)
