"""A copy of this checkout to work in, and its experiment cut down to what runs in a
minute.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
METHODS = {
    "dense": [{}],
    "magnitude": [{"sparsity": 0.5}],
    "rtn": [{"bits": 4}],
    "layer_collapse": [{"pairs": 1}],
}
CHAINS = {"magnitude__rtn": [{"magnitude.sparsity": 0.5, "rtn.bits": 4}]}


def copy_checkout(folder: Path) -> None:
    """Copy every file that git tracks or would track, without results, into a new
    repository.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if (
            name
            and not name.startswith(("results/", "tracks/"))
            and name != "dvc.lock"
            and (ROOT / name).exists()
        ):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)


def shrink(params: dict[str, Any]) -> None:
    """Leave one track with two models, one epoch, a few points and short timing."""
    track = params["tracks"]["digits"]
    track["scratch"]["epochs"] = track["fine_tune"]["epochs"] = 1
    track |= {"calibration": 64, "methods": {}}
    track["models"] = {name: track["models"][name] for name in ("mobilenet", "vit")}
    params["methods"] = {name: {"settings": settings} for name, settings in METHODS.items()}
    params["chains"] = {name: {"settings": settings} for name, settings in CHAINS.items()}
    track["seeds"] = [0]
    params["hardware_on_request"] = {"cpu_openvino": params["hardware_on_request"]["cpu_openvino"]}
    params["hardware"] = {"cpu": params["hardware"]["cpu"] | {"rounds": 5, "batches": [1]}}
