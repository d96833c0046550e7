"""Clocks for latency: the processor's, and that of a CUDA device's own stream of
work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch


def cpu_seconds() -> float:
    """Return the time in seconds."""
    return time.perf_counter()


def cuda_seconds() -> float:
    """Return the device's time in seconds, all its work done: the sum of what lies
    between CUDA events, one recorded by each call.
    """
    marks = _marks()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    event.synchronize()
    marks["seconds"] += marks["last"].elapsed_time(event) / 1000
    marks["last"] = event
    return float(marks["seconds"])


@cache
def _marks() -> dict[str, Any]:
    first = torch.cuda.Event(enable_timing=True)
    first.record()
    # summed up in double precision: the driver's milliseconds since the first event
    # lose their microseconds
    return {"last": first, "seconds": 0.0}


CLOCKS: dict[str, Callable[[], float]] = {"cpu": cpu_seconds, "cuda": cuda_seconds}
