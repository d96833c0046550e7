"""A sweep on a Ray cluster from end to end, for the command line. This room needs Ray:
who imports it has seen to it that it is installed.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from harness.cluster.join import joined, machine_of
from harness.cluster.latency import measure_on_cluster
from harness.cluster.remote import remote_of
from harness.cluster.shape import TaskShape
from harness.cluster.sweep import sweep_on_cluster
from harness.latency import runtimes
from harness.run.paths import Paths
from leaderboard.records.params import Params


@dataclass(frozen=True)
class Asked:
    """What is to be done: the points of `methods` (none: all) on `tracks`, then latency
    on `hardware`, through the place `remote`.
    """

    tracks: Sequence[str]
    methods: Sequence[str]
    hardware: Sequence[str]
    remote: str | None
    shape: TaskShape


def sweep_at(address: str, params: Params, paths: Paths, asked: Asked) -> Generator[str, None, int]:
    """Join the cluster at `address`, do what is asked there, and yield a line about
    each part as it ends; return how many points failed.
    """
    runtimes.check({name: params.profile(name) for name in asked.hardware})
    remote = remote_of(asked.remote, paths.root)
    with joined(address, params.run.workers) as revision:
        machines = {name: machine_of(name) for name in asked.hardware}
        done = sweep_on_cluster(params, paths, asked.tracks, asked.methods, remote, asked.shape)
        yield f"{', '.join(asked.tracks)} at revision {revision[:10]}: {done}"
        for track in asked.tracks:
            for hardware, machine in machines.items():
                yield measure_on_cluster(params, paths, track, hardware, remote, machine)
    return done.failed
