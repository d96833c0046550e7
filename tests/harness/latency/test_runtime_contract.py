"""What a runtime decides beside the clock: the fingerprint under which it is measured,
and which points need no run of their own.
"""

import csv
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from types import SimpleNamespace
from zipfile import ZipFile

import cpuinfo
import pytest
import torch
import yaml

from harness.latency import machine, runtimes
from harness.latency.plan import plan_of
from harness.point import weights_file
from harness.run.paths import Paths
from leaderboard.records import files
from leaderboard.records.errors import UserError
from tests.conftest import ROOT


def graph_of(*operators):
    """Return the text of a program of these operators."""
    return json.dumps([{"target": operator} for operator in operators]).encode()


PLAIN, ROUNDS, BRANCHES = (
    graph_of("linear"),
    graph_of("torch.ops.aten.round.default"),
    graph_of("torch.ops.higher_order.cond"),
)
TWICE = graph_of("linear", "linear")
TWO_OF_FOUR = torch.tensor([0.0, 1.0, 0.0, 2.0]).repeat(32, 16)
METHODS = {  # method: its realisation, its graph and its weights
    "dense": ("structural", PLAIN, torch.ones(32, 64)),
    "rtn": ("packed", PLAIN, torch.full((32, 64), 2.0)),
    "gptq": ("packed", PLAIN, torch.full((32, 64), 4.0)),
    "magnitude": ("masked", PLAIN, TWO_OF_FOUR),
    "random_pruning": ("masked", PLAIN, torch.ones(32, 64)),
    "svd": ("structural", TWICE, torch.ones(32, 64)),
    "tucker": ("structural", TWICE, torch.full((32, 64), 3.0)),
    "int8_static": ("kernel", ROUNDS, torch.ones(32, 64)),
    "smoothquant": ("kernel", ROUNDS, torch.full((32, 64), 2.0)),
    "q_exit": ("dynamic", BRANCHES, torch.ones(32, 64)),
}
# the first that runs dense's own program is timed all the same, as a control
IN_TORCH = (
    ["dense", "rtn", "svd", "smoothquant", "q_exit"],
    {"gptq": "dense", "tucker": "svd", "int8_static": "smoothquant"},
)
IN_ONNX = (
    ["dense", "rtn", "svd", "int8_static", "smoothquant", "q_exit"],
    {"gptq": "dense", "tucker": "svd"},
)
KERNELS = (["dense", "int8_static", "smoothquant"], {})  # all that the profile asks for
IN_SPARSE = (
    ["dense", "random_pruning", "magnitude", "svd", "smoothquant", "q_exit"],
    {**IN_TORCH[1], "rtn": "dense"},
)
NUMBERS = {
    "accuracy": 1.0,
    "correct": 1,
    "images": 1,
    "bytes": 1,
    "parameters": 1,
    "macs": 1,
    "effective_macs": 1,
    "bit_operations": 1,
}
NUMBERS |= {"work": {"images": 0, "steps": 0}}
BASE = {
    "cpu": "a processor",
    "flags": ["avx2", "sse"],
    "cores": 3,
    "governor": "unknown",
    "threads": 1,
    "torch": "2.13.0",
    "torch_build": "2bd9a07eddf2828e",
    "python": "3.12.1",
    "system": "Linux x86_64",
}
GPU = {"gpu": "a GPU", "cuda": "12.8"}


@pytest.fixture
def some_machine(monkeypatch, tmp_path):
    """A machine whose every answer is known."""
    monkeypatch.setattr(
        cpuinfo, "get_cpu_info", lambda: {"brand_raw": "a processor", "flags": ["sse", "avx2"]}
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1, 2})
    monkeypatch.setattr(machine, "GOVERNOR", tmp_path / "none")
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    monkeypatch.setattr(torch, "__config__", SimpleNamespace(show=lambda: "a build"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(platform, "python_version", lambda: "3.12.1")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: {"onnxruntime": "1.31.1", "openvino": "2026.4.1"}[name],
    )


@pytest.mark.parametrize(
    ("hardware", "own", "hashed"),
    [
        ("cpu", {}, "65cecb416161a357"),
        ("cpu_ort", {"runtime": "onnxruntime 1.31.1"}, "cced085e4cd8de82"),
        ("cpu_openvino", {"runtime": "openvino 2026.4.1"}, "625ec373541fc660"),
        ("cuda", GPU, "d52e5c0db5d32b9c"),
        ("cuda_graph", GPU, "d52e5c0db5d32b9c"),
        ("cuda_sparse", GPU | {"sparse": "2:4"}, "e0e656e57ede5190"),
    ],
)
def test_the_fingerprint_of_every_profile_is_what_it_was(
    params, some_machine, hardware, own, hashed
):
    assert machine.fingerprint(params.profiles[hardware]) == {**BASE, **own, "fingerprint": hashed}


@pytest.fixture(scope="module")
def written(tmp_path_factory, params):
    """Return (params, paths) of an experiment with one row a method of `METHODS`, of
    which only graphs and weights were written.
    """
    plans = {name: plan for name, plan in params.methods.items() if name in METHODS}
    params, paths = (
        params.model_copy(update={"methods": plans, "chains": {}}),
        Paths(tmp_path_factory.mktemp("written"), params.version),
    )
    for method, (realisation, graph, weight) in METHODS.items():
        row = {
            "id": "resnet_seed=0",
            "model": "resnet",
            "setting": {},
            "seed": 0,
            "fingerprint": method,
            "status": "ok",
        } | NUMBERS
        who = {"name": method, "family": "f", "needs": "data-free", "realisation": realisation}
        about = {"version": params.version, "track": "digits", "content_hash": "c"}
        files.write_json(paths.points("digits", method), {**about, "method": who, "points": [row]})
        folder = paths.artefacts("digits", method) / "resnet_seed=0"
        folder.mkdir(parents=True)
        with ZipFile(folder / "program.pt2", "w") as archive:
            archive.writestr("program/models/model.json", graph)
        (folder / "weights.safetensors").write_bytes(weights_file.encode({"weight": weight}, {}))
    return params, paths


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [
        ("cpu", IN_TORCH),
        ("cpu_ort", KERNELS),
        ("cpu_openvino", IN_ONNX),
        ("cuda", IN_TORCH),
        ("cuda_graph", IN_TORCH),
        ("cuda_sparse", IN_SPARSE),
    ],
)
def test_under_every_profile_the_same_points_are_timed_as_ever(written, hardware, expected):
    params, paths = written
    plan = plan_of(params, paths, "digits", params.profiles[hardware])
    same = {row["method"]: row["timed"]["method"] for row in plan.same_program}
    assert (sorted(point.method for point in plan.timed), same) == (
        sorted(expected[0]),
        expected[1],
    )
    assert plan.timed[0].method == "dense"


FRESH = """
from harness.point import store
from harness.latency.runtimes import Runtime

class Fresh(Runtime):
    package, zeros = "numpy", "any"

    def prepare_track(self, params, paths, track, folders):
        return {folder: "not taken: masked twice" if "__" in folder.parent.name else folder for folder in folders}

    def alone(self, folder, operators):
        return True

    def load(self, profile, artefact):
        return lambda _images: store.read(artefact).module
"""
WITH = (
    "import sys, harness.latency.runtimes; "
    "harness.latency.runtimes.__path__.append(sys.argv.pop(1)); from harness.cli.command import "
    "main; main()"
)


@pytest.fixture
def dropped_in(tmp_path, monkeypatch):
    """Return a function that puts one file into the folder of runtimes, or rather into
    one that is looked through as well.
    """
    monkeypatch.setattr(runtimes, "__path__", [*runtimes.__path__, str(tmp_path)])

    def put(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, f"{runtimes.__name__}.{name}", raising=False)
        return tmp_path

    yield put
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(f"{runtimes.__name__}.{file.stem}", None)


@pytest.mark.slow
def test_a_new_runtime_is_one_file_and_a_profile(tiny_project, tmp_path, dropped_in):
    root = tmp_path / "project"
    shutil.copytree(tiny_project, root)
    content = yaml.safe_load((root / "params.yaml").read_text())
    content["hardware"]["new"] = content["hardware"]["cpu"] | {"runtime": "fresh"}
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    folder = dropped_in("fresh", FRESH)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def output(*command):
        done = subprocess.run(
            [sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "1 tracks, 3 methods" in output("-c", WITH, str(folder), "check", "params")
    assert "new: fingerprint " in output("-c", WITH, str(folder), "hardware")
    output("-c", WITH, str(folder), "measure", "digits", "new")
    (file,) = (root / "results" / "v1" / "digits" / "latency" / "new").iterdir()
    report = files.read_json(file)
    about = report["machine_info"]["shrinkmark"]
    assert (about["runtime"], about["sparse"]) == (
        f"numpy {importlib.metadata.version('numpy')}",
        "any",
    )
    assert [row["extra_info"]["method"] for row in report["benchmarks"]] == [
        "dense",
        "magnitude",
        "rtn",
        "rtn",
    ] and report["same_program"] == []
    assert all(
        row["extra_info"]["agreement"]["same"] == row["extra_info"]["agreement"]["images"] > 0
        for row in report["benchmarks"]
    )
    assert [(row["method"], row["reason"]) for row in report["failed"]] == [
        ("magnitude__rtn", "not taken: masked twice")
    ]
    output("-m", "shrinkmark", "tables")
    with (root / "results" / "v1" / "digits" / "tables" / "new.csv").open() as table:
        shown = {row["method"]: row for row in csv.DictReader(table)}
    assert {row["hardware"] for row in shown.values()} == {"new"} and shown["magnitude__rtn"][
        "latency_reason"
    ] == "not taken: masked twice"
    assert float(shown["magnitude"]["speedup_b1"]) > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "runtime 'odd' must be one class derived from Runtime with a method load, found 0"),
        ("from harness.latency.runtimes.eager import Eager\n", "found 0"),
        (
            "from harness.latency.runtimes import Runtime\nclass A(Runtime):\n    package = "
            "'numpy'\n",
            "with a method load, found 1",
        ),
        (
            "from harness.latency.runtimes.eager import Eager\nclass A(Eager): pass\nclass "
            "B(Eager): pass\n",
            "found 2",
        ),
        (
            "import no_such_package\n",
            "runtime 'odd' cannot be imported: ModuleNotFoundError: No module named "
            "'no_such_package'",
        ),
        (
            "raise ValueError('one\\ntwo')\n",
            "runtime 'odd' cannot be imported: ValueError: one two",
        ),
    ],
)
def test_a_file_that_is_no_runtime_is_refused_on_one_line(dropped_in, text, said):
    dropped_in("odd", text)
    with pytest.raises(UserError) as error:
        runtimes.named("odd")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_every_runtime_is_complete_and_known_by_its_file():
    assert [runtimes.named(name).name for name in runtimes.names()] == runtimes.names()
    with pytest.raises(UserError, match="unknown runtime '_onnx'"):
        runtimes.named("_onnx")


def test_whether_predictions_are_compared_is_as_it_was(params):
    assert [
        name
        for name, profile in params.profiles.items()
        if runtimes.of(profile).as_evaluated(profile)
    ] == ["cpu"]


def test_a_profile_that_asks_for_rows_that_there_cannot_be_is_one_line(params):
    profile = params.profiles["cpu_ort"].model_copy(update={"realisations": ["kernal"]})
    with pytest.raises(
        UserError,
        match=r"hardware 'cpu_ort': unknown realisation 'kernal': did you mean 'kernel'\?",
    ):
        runtimes.check({"cpu_ort": profile})
