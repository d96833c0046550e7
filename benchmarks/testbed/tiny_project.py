"""A tiny project, made once by the real stages: one model of one block, four methods,
their artefacts, records, latency and tables.
"""

import contextlib
import hashlib
import io
import json
import shutil
from pathlib import Path

import yaml

from benchmarks.testbed.checkout import ROOT
from harness.run.compress import compress
from harness.run.paths import Paths
from harness.run.train import train_track
from leaderboard.records.outline import read_outline
from leaderboard.records.params import load_params
from leaderboard.tables.build import build

SCHEDULE = {
    "optimiser": "adamw",
    "precision": "fp32",
    "epochs": 0,
    "batch": 16,
    "learning_rate": 0.003,
    "weight_decay": 0.05,
    "warmup": 0.15,
    "label_smoothing": 0.1,
}
TRACK = {
    "dataset": "digits",
    "device": "cpu",
    "seeds": [0],
    "seconds": 60,
    "image_size": 8,
    "interpolation": "bilinear",
    "crop": 1,
    "normalise": "train",
    "first": 32,
    "calibration": 16,
    "augment": {"degrees": 15},
    "scratch": SCHEDULE,
    "fine_tune": SCHEDULE,
    "models": {
        "mixer": {
            "timm": "mixer_small",
            "args": {"img_size": 8, "patch_size": 4, "embed_dim": 8, "num_blocks": 1},
            "narrow": {"embed_dim": 2},
        }
    },
}
PARAMS = {
    "version": "v1",
    "run": {"workers": 2, "gibibytes": 4},
    "tracks": {"digits": TRACK},
    "methods": {
        "dense": {"settings": [{}]},
        "magnitude": {"settings": [{"sparsity": 0.5}]},
        "rtn": {"settings": [{"bits": 4}, {"bits": 2}]},
    },
    "chains": {"magnitude__rtn": {"settings": [{"magnitude.sparsity": 0.5, "rtn.bits": 4}]}},
    "hardware": {
        "cpu": {
            "device": "cpu",
            "runtime": "eager",
            "threads": 1,
            "batches": [1],
            "rounds": 5,
            "warmup_rounds": 1,
        }
    },
}
PAGE = (
    "# Tiny\n<!-- digest:begin -->\n<!-- digest:end -->\n<!-- methods:begin -->\n<!-- methods:end "
    "-->\n"
)
MACHINE = {
    "cpu": "a processor",
    "flags": "avx2",
    "cores": 2,
    "governor": None,
    "threads": 1,
    "torch": "2.13",
    "fingerprint": "f00d",
}


def make(root: Path) -> None:
    """Run the whole experiment in the empty folder `root`."""
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False))
    (root / "docs").mkdir()
    (root / "docs" / "results.md").write_text(PAGE)
    (root / "tests" / "methods").mkdir(parents=True)
    (root / "methods").mkdir()
    for name in PARAMS["methods"]:
        shutil.copy(ROOT / "methods" / f"{name}.py", root / "methods")
    params, paths = load_params(root / "params.yaml"), Paths(root, "v1")
    with contextlib.redirect_stderr(io.StringIO()):
        train_track(params, paths, "digits")
        compress(params, paths, "digits")
    _time(paths)
    (costs,) = paths.costs("digits").iterdir()
    costs.rename(costs.with_name("f00d.json"))  # of a machine that a test knows by name
    outline = read_outline(root / "params.yaml")
    build(root / "results", "v1", [], root / "docs" / "results.md", outline)


def _time(paths: Paths) -> None:
    """Write a latency file of dense against itself and of one point, as
    pytest-benchmark lays it out.
    """
    benchmarks = []
    for method, seconds in (("dense", 0.001), ("rtn", 0.0005)):
        record = json.loads(paths.points("digits", method).read_text())["points"][0]
        about = {
            "method": method,
            **{key: record[key] for key in ("id", "model", "setting", "seed", "fingerprint")},
        }
        rounds = [seconds * (1 + step / 1000) for step in range(5)]
        benchmarks.append(
            {
                "stats": {"data": rounds},
                "extra_info": {
                    **about,
                    "batch": 1,
                    "dense": [0.001 * (1 + step / 1000) for step in range(6)],
                },
            }
        )
    file = paths.latency("digits", "cpu") / "f00d.json"
    file.parent.mkdir(parents=True)
    file.write_text(
        json.dumps(
            {
                "machine_info": {"shrinkmark": MACHINE},
                "benchmarks": benchmarks,
                "same_program": [],
                "failed": [],
            }
        )
    )


def digest(root: Path) -> str:
    """Return the sha256 of every name and every byte below `root`."""
    sha = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        sha.update(f"{path.relative_to(root)} {path.is_symlink()} {path.is_dir()}".encode())
        if path.is_file():
            sha.update(path.read_bytes())
    return sha.hexdigest()
