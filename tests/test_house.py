"""The rules of the house that a script can see: which way imports run, and what a
method may not reach for.
"""

import ast
import importlib
from dataclasses import fields
from pathlib import Path

import pytest

from harness.latency import runtimes
from harness.run import fingerprint, registry
from harness.run.code import rules
from harness.run.code.source import Sources
from leaderboard.site.docstrings import read_docstring
from tests.conftest import ROOT

FILES = sorted(path for path in (ROOT / "methods").glob("[a-z]*.py"))
# what another package holds is held to the rules there
METHODS = [path for path in FILES if not rules.hands_on(path.read_text())]
PARTS = sorted(path for path in (ROOT / "methods" / "parts").rglob("[a-z]*.py"))
MAY = {"cuda_graph": frozenset({"cuda"})}  # what one shared part is for
PACKAGES = ("methods", "harness", "leaderboard", "benchmarks", "tools", "tests")
# packages of others, for tests to find
STRANGE = (ROOT / "tests" / "outside", ROOT / "tests" / "sources")
OURS = [
    path
    for name in PACKAGES
    for path in sorted((ROOT / name).rglob("*.py"))
    if not any(path.is_relative_to(place) for place in STRANGE)
]

# Rooms, from the lowest up in the harness, and all that each may import of ours; a
# package stands for all of its rooms.
BELOW = ("methods", "leaderboard.records")
DATA, MODELS = (*BELOW, "harness.data"), (*BELOW, "harness.data", "harness.models")
POINT = (*MODELS, "harness.point")
RUN = (*POINT, "harness.run")
LATENCY = (*RUN, "harness.latency")
CLUSTER = (*LATENCY, "harness.cluster")
MAY_IMPORT = {
    "methods": ("methods",),
    "leaderboard.records": ("leaderboard.records",),
    "leaderboard": ("leaderboard",),
    "harness.data": DATA,
    "harness.models": MODELS,
    "harness.point": POINT,
    "harness.run": RUN,
    "harness.latency": LATENCY,
    "harness.cluster": CLUSTER,
    "harness.audit": (*CLUSTER, "leaderboard"),
    "harness.own": (*LATENCY, "harness.own"),
    "harness.trial": (*LATENCY, "harness.trial"),
    "harness.cli": ("methods", "harness", "leaderboard"),
    "benchmarks.testbed": ("methods", "harness", "leaderboard", "benchmarks.testbed"),
    "benchmarks": ("methods", "harness", "leaderboard", "benchmarks"),
    "tools": ("methods", "harness", "leaderboard", "benchmarks.testbed", "tools"),
    "tests": PACKAGES,
}
KNOWN = {  # what still runs the other way
    # their folders alone: it reads their files
    "harness/run/fingerprint.py": {"harness", "leaderboard"},
}
COMMANDS = ("harness/cli", "shrinkmark.py")
SLOW, MAY_LACK = "takes a second or more to import", "needs what a machine may lack"
LATE = {  # imports inside functions elsewhere, and why
    "harness/data/digits.py": SLOW,
    "harness/data/cifar10.py": SLOW,
    "harness/data/_split_rules.py": SLOW,
    "harness/data/timm_readers/hugging_face.py": MAY_LACK,
    "harness/data/timm_readers/streams.py": MAY_LACK,
    "harness/latency/onnx_files.py": MAY_LACK,
    "harness/latency/runtimes/_onnx.py": MAY_LACK,
    "harness/latency/runtimes/onnxruntime.py": MAY_LACK,
    "harness/latency/runtimes/openvino.py": MAY_LACK,
}
MOST = 15  # files in a folder


def imports(path: Path) -> set[str]:
    """Return what a file imports, as dotted names."""
    return {
        one.name
        for one in rules.imports(path.read_text(), ".".join(path.relative_to(ROOT).parent.parts))
    }


def module_of(path: Path) -> str:
    """Return the dotted name of a file of ours."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def within(name: str, room: str) -> bool:
    """Say whether a dotted name is `room` or lies in it."""
    return name == room or name.startswith(f"{room}.")


def relative(path: Path) -> str:
    """Return a file's name from the root on."""
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    """Return the innermost room of the table that a file lies in."""
    return max((room for room in MAY_IMPORT if within(module_of(path), room)), key=len)


def upward(path: Path) -> set[str]:
    """Return what a file imports of ours that its room may not."""
    ours = {name for name in imports(path) if name.split(".")[0] in PACKAGES}
    return {
        name for name in ours if not any(within(name, room) for room in MAY_IMPORT[room_of(path)])
    }


def test_no_modules_import_each_other_in_a_circle():
    sources = Sources({name: [ROOT / name] for name in PACKAGES})
    assert all(sources.hash(module_of(path)) for path in OURS)  # a circle is an error


def test_imports_between_rooms_run_one_way():
    assert {
        relative(path): names
        for path in OURS
        if (names := upward(path) - KNOWN.get(relative(path), set()))
    } == {}


# what runs a point, and what trains dense
DECIDING = ("harness.point.worker", "harness.point.dense")
# what joins the steps of a chain, which decides the points of chains alone: see
# harness/run/fingerprint.py
CHAIN = "harness.point.chain"


def test_a_folder_is_a_fingerprints_scope():
    sources = Sources({name: [ROOT / name] for name in PACKAGES})
    closure = {module for home in (*DECIDING, CHAIN) for module in sources.closure(home)}
    files = [path for path in (ROOT / "harness" / "point").rglob("*.py") if path.stem != "__init__"]
    assert {module_of(path) for path in files} <= closure, "each of its files decides numbers"
    rooms = ("methods", "harness.point", "harness.data", "harness.models", "leaderboard.records")
    assert {module for module in closure if not any(within(module, room) for room in rooms)} <= {
        "harness"
    }, "and nothing else of ours does"
    assert CHAIN in fingerprint.files_of("magnitude__rtn") and CHAIN not in fingerprint.files_of(
        "rtn"
    )


def late(tree: ast.AST) -> bool:
    """Say whether a file imports inside a function."""
    functions = [
        node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    return any(
        isinstance(node, (ast.Import, ast.ImportFrom))
        for function in functions
        for node in ast.walk(function)
    )


def test_only_commands_import_inside_functions():
    files = [
        path
        for path in OURS
        if path.relative_to(ROOT).parts[0] != "tests" and not relative(path).startswith(COMMANDS)
    ]
    assert {relative(path) for path in files if late(ast.parse(path.read_text()))} <= set(LATE)


def test_no_folder_holds_more_files_than_a_reader_takes_in_at_once():
    # a file a method
    folders = {path.parent for path in OURS} - {ROOT / "methods", ROOT / "tests" / "methods"}
    counts = {
        relative(folder): sum(path.stem != "__init__" for path in folder.glob("*.py"))
        for folder in folders
    }
    assert {name: count for name, count in counts.items() if count > MOST} == {}


@pytest.mark.parametrize("path", METHODS + PARTS, ids=lambda path: path.stem)
def test_methods_import_no_other_method(path):
    of_methods = {name.split(".")[1] for name in imports(path) if name.startswith("methods.")}
    assert not {
        name
        for name in of_methods
        if (ROOT / "methods" / f"{name}.py").exists() and not name.startswith("_")
    }


@pytest.mark.parametrize("path", METHODS + PARTS, ids=lambda path: path.stem)
def test_methods_keep_the_rules_on_their_text(path):
    assert rules.breaches(path.read_text(), allowed=MAY.get(path.stem, frozenset())) == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "leaderboard").rglob("*.py")), ids=lambda path: path.stem
)
def test_the_leaderboard_imports_neither_methods_nor_harness_nor_torch(path):
    assert not {name.split(".")[0] for name in imports(path)} & {
        "methods",
        "harness",
        "torch",
        "timm",
    }


@pytest.mark.parametrize(
    "path", sorted((ROOT / "harness").rglob("*.py")), ids=lambda path: path.stem
)
def test_the_harness_never_names_a_method_but_dense_nor_a_model_of_a_track(path, params):
    names = {path.stem for path in METHODS} - {"dense", "svd"} | {
        "wanda",
        "resnet",
        "mobilenet",
        "vit",
        "mixer",
    }
    strings = {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not strings & names


@pytest.mark.parametrize(
    "path",
    [path for path in sorted((ROOT / "harness").rglob("*.py")) if path.parent.name != "runtimes"],
    ids=lambda path: path.stem,
)
def test_no_runtime_is_named_nor_imported_outside_the_folder_of_runtimes(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    strings = {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not strings & set(runtimes.names())
    home = f"{runtimes.__name__}."
    assert not {
        name
        for name in imports(path)
        if name.startswith(home)
        and (Path(runtimes.__path__[0]) / f"{name.removeprefix(home)}.py").exists()
    }


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_every_method_says_what_it_is_and_names_its_oracle_and_has_three_tests_of_its_own(path):
    said = read_docstring(path)
    assert said.summary.count(": ") >= 1 and said.reference and said.idea and said.checked
    settings = [field.name for field in fields(registry.load(path.stem))]
    assert [name for name, _ in said.arguments] == settings
    assert all(text for _, text in said.arguments)
    tests = ast.parse((ROOT / "tests" / "methods" / f"test_{path.stem}.py").read_text())
    assert (
        sum(
            isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            for node in tests.body
        )
        >= 3
    )


@pytest.mark.parametrize(
    "module", ["leaderboard.records.params", "harness.run.server.pool", "harness.cli.command"]
)
def test_modules_that_a_help_page_needs_do_not_import_torch(module):
    source = Path(importlib.import_module(module).__file__ or "").read_text()
    top = {
        ast.unparse(node)
        for node in ast.parse(source).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert not any(
        "torch" in line or "import methods" in line or "from methods" in line for line in top
    )


def test_a_file_that_hands_on_a_method_of_another_package_is_held_to_no_rule_of_this_house():
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    line = f"from my_package{text.partition('`from my_package')[2].partition('`')[0]}"
    assert rules.hands_on(line) and rules.hands_on(
        f'"""Somebody else\'s."""\n\nfrom __future__ import annotations\n\n{line}\n'
    )
    for other in (
        line.replace(" as MyMethod", ""),
        f"{line}\nx = 1",
        line.replace("my_package.module", "harness.data"),
        "from .works import X as X",
        "import os",
    ):
        assert not rules.hands_on(other)
