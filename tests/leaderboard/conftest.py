"""Small made-up results, written as the harness writes them."""

import json

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from tests.conftest import ROOT

IMAGES = 200
ROUNDS = 31
COMMITTED = yaml.safe_load((ROOT / "params.yaml").read_text())


class Results:
    """A folder of results that tests fill and damage."""

    def __init__(self, root):
        self.root = root / "results"
        self.labels = np.arange(IMAGES) % 10
        self.benchmarks, self.same_program, self.failed = [], [], []
        self.readme = root / "README.md"
        self.readme.write_text("# Title\n<!-- digest:begin -->\nold\n<!-- digest:end -->\ntail\n")
        self.params = root / "params.yaml"
        self.write_params("digits")

    def write_params(self, *tracks, first=()):
        """Write the committed params cut down to three methods and one hardware, with
        `tracks` that are all as digits, those of `first` to be shown first.
        """
        methods = {
            name: {"settings": COMMITTED["methods"][name]["settings"]}
            for name in ("dense", "wanda", "rtn")
        }
        hardware = {"cpu": {**COMMITTED["hardware"]["cpu"], "batches": [1, 32]}}
        # what it does otherwise with those cut away
        digits = {
            key: value for key, value in COMMITTED["tracks"]["digits"].items() if key != "methods"
        }
        content = {
            "version": "v1",
            "run": COMMITTED["run"],
            "tracks": dict.fromkeys(tracks, digits),
            "shown_first": list(first),
        }
        self.params.write_text(
            yaml.safe_dump(content | {"methods": methods, "hardware": hardware}, sort_keys=False)
        )

    def folder(self, track="digits"):
        return self.root / "v1" / track

    def tables(self, track="digits"):
        return self.root / "v1" / track / "tables"

    def write_track(self, track="digits", version="v1", models=("resnet", "vit"), **changed):
        trained = {
            "timm": "x",
            "parameters": 10,
            "validation_accuracy": 0.9,
            "test_accuracy": 0.9,
            "weights_sha256": "a",
        }
        trained |= {"dense": "own recipe, 30 epochs", "scratch_epochs": 30, "fine_tune_epochs": 6}
        content = {
            "version": version,
            "track": track,
            "dataset": "digits",
            "title": "Digits (1797 images of 8 x 8)",
            "content_hash": "abc123",
            "sources": {"images": "a18e", "labels": "b29f"},
            "device": "cpu",
            "seeds": [0, 1, 2],
            "images": {"train": 100, "validation": 20, "test": len(self.labels), "calibration": 10},
            "test_labels": self.labels.tolist(),
            "models": {
                name: trained | own
                for name, own in (
                    models if isinstance(models, dict) else {name: {} for name in models}
                ).items()
            },
        }
        self.write_json(self.folder(track) / "track.json", content | changed)

    def write_dense_alone(self, track):
        """Write a track of one model that nothing was made from."""
        self.write_track(track, models=("resnet",))
        self.write_method("dense", [ok("d", range(4), images=len(self.labels))], track=track)

    def write_json(self, path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    def write_method(self, name, points, track="digits", **who):
        """Write points [(point, wrong images or None)] and their predictions."""
        method = {
            "name": name,
            "family": "f",
            "paper": "p",
            "needs": "data-free",
            "realisation": "structural",
            "stochastic": False,
        } | who
        content = {
            "version": "v1",
            "track": track,
            "content_hash": "abc123",
            "method": method,
            "points": [point for point, _ in points],
        }
        self.write_json(self.folder(track) / "points" / f"{name}.json", content)
        predictions = {
            key: part
            for point, wrong in points
            if wrong is not None
            for key, part in self.answers(point["id"], wrong).items()
        }
        path = self.folder(track) / "predictions" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        if predictions:
            save_file(predictions, path)

    def answers(self, name, wrong):
        """Return the parts of a point's predictions as the harness stores them."""
        predicted = self.predictions(wrong)
        rank = (predicted != self.labels).astype(np.uint16)
        return {
            name: predicted,
            f"{name}|confidence": np.full(len(self.labels), 0.9, np.float16),
            f"{name}|rank": rank,
        }

    def write_costs(self, took, machine="f00d", track="digits"):
        """Write what points took on a machine: seconds by method and id; all points
        have the fingerprint x.
        """
        about = {
            "cpu": "Its <CPU>",
            "cores": 2,
            "instructions": "AVX2",
            "torch": "2.13",
            "python": "3.11",
            "system": "Linux",
            "fingerprint": machine,
        }
        spent = {"fingerprint": "x", "peak_mib": 20.0, "export": 0.1, "evaluate": 0.2}
        points = {
            method: {name: spent | {"seconds": seconds} for name, seconds in points.items()}
            for method, points in took.items()
        }
        content = {"version": "v1", "track": track, "machine": about, "dense": {}, "points": points}
        self.write_json(self.folder(track) / "costs" / f"{machine}.json", content)

    def predictions(self, wrong):
        predicted = self.labels.astype(np.uint16)
        predicted[list(wrong)] = (predicted[list(wrong)] + 1) % 10
        return predicted

    def time(self, name, identity, factor, batch=1, model="resnet", noise=0.002):
        """Add a benchmark of a point that takes `factor` times as long as dense."""
        generator = np.random.default_rng(len(self.benchmarks))
        dense = 0.001 * batch * (1 + noise * generator.standard_normal(ROUNDS + 1))
        data = factor * 0.001 * batch * (1 + noise * generator.standard_normal(ROUNDS))
        info = {
            "method": name,
            "model": model,
            "setting": {},
            "seed": 0,
            "id": identity,
            "batch": batch,
            "dense": dense.tolist(),
        }
        self.benchmarks.append({"stats": {"data": data.tolist()}, "extra_info": info})

    def latency(self, hardware="cpu", machine="f00d", track="digits"):
        return self.folder(track) / "latency" / hardware / f"{machine}.json"

    def write_latency(self, hardware="cpu", track="digits", machine="f00d", sparse=None):
        about = {
            "cpu": "A <CPU>",
            "flags": "avx2",
            "cores": 2,
            "governor": None,
            "threads": 1,
            "torch": "2.13",
            "fingerprint": machine,
            "sparse": sparse,
        }
        content = {
            "machine_info": {"shrinkmark": about},
            "benchmarks": self.benchmarks,
            "same_program": self.same_program,
            "failed": self.failed,
        }
        self.write_json(self.latency(hardware, machine, track), content)


def ok(
    identity,
    wrong,
    model="resnet",
    seed=0,
    setting=None,
    size=1000,
    macs=100,
    images=IMAGES,
    **more,
):
    """Return a measured point and the images it gets wrong."""
    correct = images - len(wrong)
    point = {
        "id": identity,
        "model": model,
        "setting": setting or {},
        "seed": seed,
        "status": "ok",
        "reason": None,
        "fingerprint": "x",
    }
    point |= {
        "accuracy": correct / images,
        "correct": correct,
        "images": images,
        "bytes": size,
        "parameters": 10,
        "macs": macs,
    }
    point |= {
        "effective_macs": macs,
        "bit_operations": macs * 1024,
        "work": {"images": 64, "steps": 2},
    }
    return point | more, wrong


def lost(identity, status, reason, model="resnet", seed=0, setting=None):
    """Return a skipped or failed point."""
    return {
        "id": identity,
        "model": model,
        "setting": setting or {},
        "seed": seed,
        "status": status,
        "reason": reason,
        "accuracy": None,
    }, None


@pytest.fixture
def results(tmp_path):
    """Results without any content."""
    return Results(tmp_path)


@pytest.fixture
def point():
    """The maker of measured points."""
    return ok


@pytest.fixture
def lost_point():
    """The maker of skipped and failed points."""
    return lost


@pytest.fixture
def filled(results):
    """One track with two models: dense, a masked, a packed method with several
    settings, a stochastic one, skips and failures.
    """
    return fill(results)


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory):
    """The same for a whole module, which may add to it in fixtures of its own."""
    return fill(Results(tmp_path_factory.mktemp("filled")))


def fill(results):
    """Write the results of `filled`."""
    few, many = range(4), range(60)
    results.write_track()
    results.write_method("dense", [ok("d-r", few), ok("d-v", few, "vit")])
    halves = [{"sparsity": 0.5}, {"sparsity": 0.9}]
    wanda = [
        ok("w-r-5", range(5), setting=halves[0], size=600, effective_macs=50),
        ok("w-r-9", many, setting=halves[1], size=200, effective_macs=10),
    ]
    skips = [
        lost(
            f"w-v-{i}",
            "skipped",
            "no Linear | here\n<script>alert(1)</script>",
            "vit",
            setting=half,
        )
        for i, half in enumerate(halves)
    ]
    results.write_method(
        "wanda", wanda + skips, needs="calibration", realisation="masked", family="pruning"
    )
    rtn = [
        ok("r-r-8", few, setting={"bits": 8}, size=250),
        ok("r-r-4", range(6), setting={"bits": 4}, size=125),
        ok("r-r-2", many, setting={"bits": 2}, size=80),
    ]
    results.write_method(
        "rtn",
        [*rtn, lost("r-v-8", "failed", "returned NaN", "vit", setting={"bits": 8})],
        realisation="packed",
        family="quantisation",
    )
    seeds = [
        ok(
            f"l-r-{seed}",
            range(seed, seed + 3 + seed),
            seed=seed,
            setting={"keep": 0.5},
            size=500,
            macs=50,
        )
        for seed in (0, 1)
    ]
    cut = [
        *seeds,
        lost("l-r-2", "failed", "time limit", seed=2, setting={"keep": 0.5}),
        ok("l-v", range(3), "vit", setting={"keep": 0.5}, size=500, macs=50),
    ]
    results.write_method("l1_channels", cut, needs="fine-tune", stochastic=True, family="pruning")
    made = {
        "dense": ("d-r", "d-v"),
        "wanda": ("w-r-5", "w-r-9"),
        "rtn": ("r-r-8", "r-r-4", "r-r-2"),
        "l1_channels": ("l-r-0", "l-r-1", "l-v"),
    }
    results.write_costs({method: dict.fromkeys(ids, 1.5) for method, ids in made.items()})
    for batch in (1, 32):
        results.time("dense", "d-r", 1.0, batch)
        results.time("dense", "d-v", 1.0, batch, "vit")
        results.time("rtn", "r-r-8", 1.0001, batch)
        results.time("rtn", "r-r-4", 1.5, batch)
        results.time("l1_channels", "l-r-0", 0.5, batch)
        results.time("l1_channels", "l-r-1", 0.5, batch)
    results.write_latency()
    return results


@pytest.fixture
def large(results):
    """One track of 10,000 test images: dense, and a method whose three seeds lose four,
    five and six of them.
    """
    results.labels = np.arange(10_000) % 10
    results.write_track(models=("resnet",))
    results.write_method("dense", [ok("d", range(740), images=10_000)])
    results.write_method(
        "rtn",
        [
            ok(f"r{seed}", range(744 + seed), seed=seed, size=500, images=10_000)
            for seed in range(3)
        ],
        stochastic=True,
    )
    return results
