"""The code that decides points, by its syntax: comments, docstrings and layout may change without anything being run again."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from harness.strict import JOIN

ROOT = Path(__file__).parent.parent
DECIDING = (
    "augment",
    "cifar_resnet",
    "data",
    "device",
    "huffman",
    "macs",
    "method_data",
    "models",
    "store",
    "weights_file",
    "worker",
)  # files of the harness that decide a record


@cache
def code_hash(path: Path) -> str:
    """Return the sha256 of a file's syntax tree without docstrings, so that comments and layout may change."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def shared() -> dict[str, str]:
    """Return the hash of every file that the points of more than one method rest on, by its name: what the stages that compress watch beside their method."""
    return _hashes([*(ROOT / "harness" / f"{name}.py" for name in (*DECIDING, "compress")), *(ROOT / "methods").glob("_*.py")])


def of_chains(chains: Iterable[str]) -> dict[str, str]:
    """Return the hash of every method's file that is a step of `chains`, and of what joins them; a method of another package has no file here."""
    steps = {ROOT / "methods" / f"{step}.py" for chain in chains for step in chain.split(JOIN)}
    return _hashes([ROOT / "harness" / "chain.py", *(path for path in steps if path.exists())])


def documented() -> dict[str, str]:
    """Return the docstring of every method's file here by the method's name: what pages about methods say."""
    files = sorted(path for path in (ROOT / "methods").glob("*.py") if not path.stem.startswith("_"))
    return {path.stem: ast.get_docstring(ast.parse(path.read_text())) or "" for path in files}


def _hashes(files: Iterable[Path]) -> dict[str, str]:
    return {path.relative_to(ROOT).as_posix(): code_hash(path) for path in sorted(files)}
