"""A small experiment on disk, and the outside package installed beside it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.run.paths import Paths
from harness.run.train import train_track
from leaderboard.records.params import Params, load_params

ROOT = Path(__file__).parents[2]
SCHEDULE = {
    "optimiser": "adamw",
    "precision": "fp32",
    "epochs": 1,
    "batch": 64,
    "learning_rate": 0.003,
    "weight_decay": 0.05,
    "warmup": 0.15,
    "label_smoothing": 0.1,
}


@pytest.fixture(scope="session")
def outside(tmp_path_factory):
    """Install tests/outside as a real package, entry points and all, and put it on the
    path of this process and its workers.
    """
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("outside")
    subprocess.run(["cp", "-r", str(ROOT / "tests" / "outside"), str(source)], check=True)
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
    ]
    subprocess.run([*install, "--target", str(target), str(source / "outside")], check=True)
    sys.path.insert(0, str(target))
    yield target
    sys.path.remove(str(target))


@pytest.fixture(scope="session")
def small(tmp_path_factory, outside):
    """Return (params, paths) of an experiment with one model trained for one epoch, and
    a few methods.
    """
    root = tmp_path_factory.mktemp("small")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    track = content["tracks"]["digits"] | {
        "scratch": SCHEDULE,
        "fine_tune": SCHEDULE,
        "calibration": 64,
        "seeds": [0, 1],
    }
    track |= {
        "models": {"mobilenet": track["models"]["mobilenet"]},
        "methods": {"slim": {"scratch_epochs": 0.25}},
    }
    methods = {
        "dense": {"settings": [{}]},
        "magnitude": {"settings": [{"sparsity": 0.5}, {"sparsity": 0.9}]},
        "rtn": {"settings": [{"bits": 4}]},
        "random_pruning": {"settings": [{"sparsity": 0.5}]},
        "int8_static": {"settings": [{}]},
        "layer_collapse": {"settings": [{"pairs": 1}]},
        "slim": {"settings": [{"macs": 0.5}], "seeds": 1},
    }
    chains = {"magnitude__rtn": {"settings": [{"magnitude.sparsity": 0.5, "rtn.bits": 4}]}}
    content |= {"tracks": {"digits": track}, "methods": methods, "chains": chains}
    content["hardware_on_request"] = {}
    content["hardware"] = {
        "cpu": content["hardware"]["cpu"] | {"rounds": 5, "warmup_rounds": 1, "batches": [1]}
    }
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    params = load_params(root / "params.yaml")
    paths = Paths(root, params.version)
    train_track(params, paths, "digits")
    return params, paths


@pytest.fixture
def with_methods(small):
    """Return the small experiment's params with other methods."""

    def build(methods: dict[str, list[dict]], **run: float) -> Params:
        content = small[0].model_dump()
        content["methods"] = {name: {"settings": settings} for name, settings in methods.items()}
        content["tracks"]["digits"] |= {"methods": {}} | {
            name: value for name, value in run.items() if name == "seconds"
        }
        content["run"] |= {name: value for name, value in run.items() if name != "seconds"}
        return Params.model_validate(content)

    return build
