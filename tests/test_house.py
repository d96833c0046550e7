"""The rules of the house that a script can see: which way imports run, and what a method may not reach for."""

import ast
import importlib
from pathlib import Path

import pytest
import yaml

from harness.code import DECIDING, of_chains, shared
from tests.conftest import ROOT

METHODS = sorted(path for path in (ROOT / "methods").glob("[a-z]*.py"))
PARTS = sorted(path for path in (ROOT / "methods").glob("_*.py"))
MAY_IMPORT = {"__future__", "abc", "collections", "contextlib", "copy", "dataclasses", "enum", "functools", "itertools", "math", "methods", "numpy"}
MAY_IMPORT |= {"bisect", "operator", "pydantic", "scipy", "tensorly", "timm", "torch", "torch_pruning", "torchvision", "typing"}
MAY_NOT_IMPORT = (
    "torchvision.datasets",
    "torch.hub",
    "torch.multiprocessing",
    "torch.distributed",
    "torch.utils.benchmark",
    "torch.utils.data",
    "scipy.io",
)
MAY_NOT_CALL = {"open", "exec", "eval", "__import__", "compile", "globals", "locals", "vars", "dir", "breakpoint", "input", "print"}  # by name
MAY_NOT_USE = {"manual_seed", "seed", "cuda", "getenv", "environ", "load", "save", "default_cfg", "pretrained_cfg", "create_model"}  # as attribute
MAY_NOT_USE |= {"fromfile", "memmap", "genfromtxt", "loadtxt", "loadmat", "tofile", "savetxt", "savez", "from_file", "hub", "datasets"}  # files
MAY_NOT_USE |= {"sys", "os", "io", "importlib", "gi_frame", "cr_frame", "tb_frame", "f_back", "f_locals"}  # what else the process holds
MAY_USE = {"__class__", "__name__", "__init__", "__getitem__", "__setitem__"}  # of names in double underscores
MAY = {"_graph": {"cuda"}}  # what one shared part is for


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, as dotted names."""
    return imported(path.read_text())


def imported(source: str) -> set[str]:
    """Return the modules that a source imports, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def allowed_imports(source: str) -> bool:
    """Say whether a method's source imports only what methods may."""
    names = imported(source)
    return {name.split(".")[0] for name in names} <= MAY_IMPORT and not any(name.startswith(MAY_NOT_IMPORT) for name in names)


def offences(source: str, stem: str = "") -> list[str]:
    """Return what a method's source may not do: seed, open files, look into the harness or at what it was handed, forge what is measured."""
    tree, modules = ast.parse(source), {name.split(".")[0] for name in imported(source)} | {"data", "torch"}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found += _calls(node, modules)
        elif isinstance(node, ast.Attribute):
            dunder = node.attr.startswith("__") and node.attr not in MAY_USE
            inside = isinstance(node.value, ast.Name) and node.value.id == "data" and (node.attr.startswith("_") or isinstance(node.ctx, ast.Store))
            if dunder or inside or node.attr in MAY_NOT_USE - MAY.get(stem, set()):
                found.append(ast.unparse(node))
    return found


def _calls(node: ast.Call, modules: set[str]) -> list[str]:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    by_name = name in ("getattr", "setattr", "delattr") and isinstance(node.args[0], ast.Name) and node.args[0].id in modules
    pretrained = any(keyword.arg == "pretrained" for keyword in node.keywords)
    return [ast.unparse(node)] if name in MAY_NOT_CALL or by_name or pretrained else []


@pytest.mark.parametrize("path", METHODS + PARTS, ids=lambda path: path.stem)
def test_methods_import_no_harness_no_clock_no_files_and_no_other_method(path):
    names = imports(path)
    assert allowed_imports(path.read_text())
    of_methods = {name.split(".")[1] for name in names if name.startswith("methods.")}
    assert not {name for name in of_methods if (ROOT / "methods" / f"{name}.py").exists() and not name.startswith("_")}


@pytest.mark.parametrize("path", METHODS + PARTS, ids=lambda path: path.stem)
def test_methods_do_not_seed_open_files_choose_devices_or_read_names(path):
    assert offences(path.read_text(), path.stem) == []


@pytest.mark.parametrize("path", sorted((ROOT / "leaderboard").glob("*.py")), ids=lambda path: path.stem)
def test_the_leaderboard_imports_neither_methods_nor_harness_nor_torch(path):
    assert not {name.split(".")[0] for name in imports(path)} & {"methods", "harness", "torch", "timm"}


@pytest.mark.parametrize("path", sorted((ROOT / "harness").glob("*.py")), ids=lambda path: path.stem)
def test_the_harness_never_names_a_method_but_dense_nor_a_model_of_a_track(path, params):
    names = {path.stem for path in METHODS} - {"dense", "svd"} | {"wanda", "resnet", "mobilenet", "vit", "mixer"}
    strings = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not strings & names


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_every_method_names_its_oracle_and_has_three_tests_of_its_own(path):
    assert "\nChecked against: " in (ast.get_docstring(ast.parse(path.read_text())) or "").replace("\n\n", "\n")
    tests = ast.parse((ROOT / "tests" / "methods" / f"test_{path.stem}.py").read_text())
    assert sum(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in tests.body) >= 3


@pytest.mark.parametrize("module", ["harness.params", "harness.pool", "leaderboard.__main__"])
def test_modules_that_a_help_page_needs_do_not_import_torch(module):
    source = Path(importlib.import_module(module).__file__ or "").read_text()
    top = {ast.unparse(node) for node in ast.parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom))}
    assert not any("torch" in line or "import methods" in line or "from methods" in line for line in top)


def test_dvc_watches_every_shared_part_and_every_file_of_the_harness_that_decides_a_record():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert {"methods", *(f"harness/{name}.py" for name in (*DECIDING, "chain", "code", "compress"))} == set(stages["code"]["deps"])
    assert [*stages["code"]["outs"][0], *stages["code"]["outs"][1]] == ["results/${version}/code/shared.json", "results/${version}/code/chains.json"]
    assert all("results/${version}/code/shared.json" in stages[name]["deps"] for name in ("compress", "chain"))
    assert "results/${version}/code/chains.json" in stages["chain"]["deps"]
    assert of_chains(["taylor__rtn"]).keys() == {"harness/chain.py", "methods/taylor.py", "methods/rtn.py"}
    assert {f"methods/{path.name}" for path in PARTS} | {f"harness/{name}.py" for name in DECIDING} | {"methods/__init__.py"} <= shared().keys()
