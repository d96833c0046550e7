"""The rules of the house that a script can see: which way imports run, and what a method may not reach for."""

import ast
import importlib
from pathlib import Path

import pytest

from harness.latency import runtimes
from harness.run import rules
from tests.conftest import ROOT

METHODS = sorted(path for path in (ROOT / "methods").glob("[a-z]*.py"))
PARTS = sorted(path for path in (ROOT / "methods").glob("_*.py"))
MAY = {"_graph": frozenset({"cuda"})}  # what one shared part is for


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, as dotted names."""
    return {one.name for one in rules.imports(path.read_text(), path.parent.name)}


@pytest.mark.parametrize("path", METHODS + PARTS, ids=lambda path: path.stem)
def test_methods_import_no_other_method(path):
    of_methods = {name.split(".")[1] for name in imports(path) if name.startswith("methods.")}
    assert not {name for name in of_methods if (ROOT / "methods" / f"{name}.py").exists() and not name.startswith("_")}


@pytest.mark.parametrize("path", METHODS + PARTS, ids=lambda path: path.stem)
def test_methods_keep_the_rules_on_their_text(path):
    assert rules.breaches(path.read_text(), allowed=MAY.get(path.stem, frozenset())) == []


@pytest.mark.parametrize("path", sorted((ROOT / "leaderboard").rglob("*.py")), ids=lambda path: path.stem)
def test_the_leaderboard_imports_neither_methods_nor_harness_nor_torch(path):
    assert not {name.split(".")[0] for name in imports(path)} & {"methods", "harness", "torch", "timm"}


@pytest.mark.parametrize("path", sorted((ROOT / "harness").rglob("*.py")), ids=lambda path: path.stem)
def test_the_harness_never_names_a_method_but_dense_nor_a_model_of_a_track(path, params):
    names = {path.stem for path in METHODS} - {"dense", "svd"} | {"wanda", "resnet", "mobilenet", "vit", "mixer"}
    strings = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not strings & names


@pytest.mark.parametrize(
    "path", [path for path in sorted((ROOT / "harness").rglob("*.py")) if path.parent.name != "runtimes"], ids=lambda path: path.stem
)
def test_no_runtime_is_named_nor_imported_outside_the_folder_of_runtimes(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    strings = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not strings & set(runtimes.names())
    home = f"{runtimes.__name__}."
    assert not {name for name in imports(path) if name.startswith(home) and (Path(runtimes.__path__[0]) / f"{name.removeprefix(home)}.py").exists()}


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_every_method_names_its_oracle_and_has_three_tests_of_its_own(path):
    assert "\nChecked against: " in (ast.get_docstring(ast.parse(path.read_text())) or "").replace("\n\n", "\n")
    tests = ast.parse((ROOT / "tests" / "methods" / f"test_{path.stem}.py").read_text())
    assert sum(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in tests.body) >= 3


@pytest.mark.parametrize("module", ["leaderboard.records.params", "harness.run.pool", "leaderboard.__main__"])
def test_modules_that_a_help_page_needs_do_not_import_torch(module):
    source = Path(importlib.import_module(module).__file__ or "").read_text()
    top = {ast.unparse(node) for node in ast.parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom))}
    assert not any("torch" in line or "import methods" in line or "from methods" in line for line in top)
