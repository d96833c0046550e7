"""The code that decides points, by its syntax: comments, docstrings and layout may change without anything being run again."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
DECIDING = ("augment", "cifar_resnet", "data", "device", "macs", "models", "store", "worker")  # files of the harness that decide a record


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
    files = [*(ROOT / "harness" / f"{name}.py" for name in (*DECIDING, "compress")), *(ROOT / "methods").glob("_*.py")]
    return {path.relative_to(ROOT).as_posix(): code_hash(path) for path in sorted(files)}
