"""Joining a Ray cluster with the committed code in hand, and asking it whether a point
fits on any of its nodes.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from harness.cluster.revision import unpack_revision
from harness.cluster.shape import TaskShape
from leaderboard.records.errors import Interrupted, UserError, one_line

NODE = "ray.io/node-id"  # Ray's own label
# bytes of the object store of a Ray that we start: only records pass through it
STORE = 100 * 2**20


@contextmanager
def joined(address: str, workers: int) -> Iterator[str]:
    """Join the cluster at `address` (`local`: start one here with `workers` processors)
    and yield the revision of the code that its workers run.

    Raises UserError if the code at hand is not committed, if there is no cluster of
    this version of Ray and Python at the address, or if that is lost.
    """
    with tempfile.TemporaryDirectory(prefix="shrinkmark-") as folder:
        revision = unpack_revision(Path(folder))
        environment = {"working_dir": folder, "env_vars": {"OMP_NUM_THREADS": "1"}}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a Ray that we start
        own: dict[str, Any] = (
            {"num_cpus": workers, "object_store_memory": STORE, "include_dashboard": False}
            if address == "local"
            else {}
        )
        try:
            _knock(address)
            ray.init(
                address,
                runtime_env=environment,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **own,
            )
        # Ray raises ConnectionError, RuntimeError, ValueError, grpc's own and more for
        # one thing
        except Exception as error:
            raise UserError(_reason(address, error)) from error
        try:
            yield revision
        except (RayError, ConnectionError) as error:
            raise UserError(
                f"the cluster failed: {_line(error)[:240]}: finished points are kept, mend it and "
                "run again to go on"
            ) from error
        except KeyboardInterrupt:
            raise Interrupted("finished points are kept") from None
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError if nothing listens at an address with a port: Ray itself would try
    for minutes.
    """
    host, _, port = address.removeprefix("ray://").partition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _reason(address: str, error: Exception) -> str:
    text = _line(error)
    if "ersion mismatch" in text or "versions" in text:
        return (
            f"the cluster at {address} runs another Ray or Python, here is Ray {ray.__version__}: "
            f"{text[:240]}: install the same on both"
        )
    if isinstance(error.__cause__, Exception) and "token" in _line(error.__cause__):
        return (
            f"the cluster at {address} does not take our token: set RAY_AUTH_MODE=token and the "
            "cluster's RAY_AUTH_TOKEN"
        )
    return (
        f"no Ray cluster at {address}: {text[:160] or type(error).__name__}: start one with `ray "
        "start --head`, or give --address local"
    )


def _line(error: Exception) -> str:
    return one_line(str(error))


def nodes() -> list[dict[str, Any]]:
    """Return what Ray says of the nodes that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def fits(shape: TaskShape, refused: set[str]) -> bool:
    """Say whether a node that is alive and not `refused` is large enough for `shape`,
    were it idle.
    """
    found = [node["Resources"] for node in nodes() if node["NodeID"] not in refused]
    return any(
        all(node.get(name, 0) >= asked for name, asked in shape.resources.items()) for node in found
    )


def demand(shape: TaskShape) -> None:
    """Raise UserError if no node is large enough for `shape`: Ray would wait for one
    for ever.
    """
    if fits(shape, set()):
        return
    found = [node["Resources"] for node in nodes()]
    cpus, gpus, memory = (
        max((node.get(name, 0) for node in found), default=0) for name in shape.resources
    )
    has = f"{cpus:g} CPUs, {gpus:g} GPUs and {memory / 2**30:.3g} GiB at most"
    raise UserError(
        f"a point asks for {shape}, but the {len(found)} nodes at hand have {has}: ask for less "
        "or add a node"
    )


def machine_of(hardware: str) -> dict[str, Any]:
    """Return a node that was started as a machine of the profile `hardware`; raise
    UserError if there is none.
    """
    name = f"hardware:{hardware}"
    found = next((node for node in nodes() if node["Resources"].get(name, 0) >= 1), None)
    if found is None:
        raise UserError(
            f"no node offers hardware '{hardware}': start one with `ray start --address=HEAD "
            f"--resources='{{\"{name}\": 1}}'`"
        )
    return found
