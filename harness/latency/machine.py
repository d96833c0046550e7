"""What machine this is: the part of a latency row's identity that no profile can
choose.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import cpuinfo
import torch

from harness.latency import runtimes
from leaderboard.records.params import HardwareParams

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def fingerprint(profile: HardwareParams) -> dict[str, Any]:
    """Return CPU model and flags, cores allowed, governor ("unknown" if unreadable),
    GPU, torch build, runtime and threads, and a hash of them all.
    """
    cpu = cpuinfo.get_cpu_info()
    content: dict[str, Any] = {
        "cpu": cpu.get("brand_raw", platform.processor() or "unknown"),
        "flags": sorted(cpu.get("flags", [])),
        "cores": len(os.sched_getaffinity(0)),
        "governor": GOVERNOR.read_text().strip() if GOVERNOR.exists() else "unknown",
        "threads": profile.threads,
        "torch": torch.__version__,
        "torch_build": hashlib.sha256(torch.__config__.show().encode()).hexdigest()[:16],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if profile.device == "cuda":
        content |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    content |= runtimes.of(profile).identity()
    return {
        **content,
        "fingerprint": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[
            :16
        ],
    }
