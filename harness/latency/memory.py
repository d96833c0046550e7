"""How much memory a call needs beyond what the process or the device holds before
it.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mib(call: Callable[[], object], device: str) -> float | None:
    """Return the MiB by which `call` lifts the resident memory of the process (Linux),
    or of the CUDA device what tensors take; None where neither is known.

    Free lists of the allocator are given back first (glibc), or a second call would
    seem to need nothing.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        REFERENCES.write_text("5")  # the peak starts anew, see proc(5)
    except OSError:
        return None
    before = _kib("VmRSS")
    call()
    return (_kib("VmHWM") - before) / 1024


def _kib(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
