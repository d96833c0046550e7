"""The code that decides points, by its syntax: comments, docstrings and layout may change without anything being run again."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from harness.run import fingerprint
from leaderboard.records.params_base import JOIN

ROOT = Path(__file__).parent.parent


def shared() -> dict[str, str]:
    """Return the hash of every file that the points of more than one method rest on, by its name: what the stages that compress watch beside their method."""
    return _hashes([ROOT / "harness" / "worker.py", ROOT / "harness" / "compress.py", *(ROOT / "methods").glob("_*.py")])


def of_chains(chains: Iterable[str]) -> dict[str, str]:
    """Return the hash of every method's file that is a step of `chains`, and of what joins them; a method of another package has no file here."""
    steps = {ROOT / "methods" / f"{step}.py" for chain in chains for step in chain.split(JOIN)}
    return _hashes([ROOT / "harness" / "chain.py", *(path for path in steps if path.exists())])


def documented() -> dict[str, str]:
    """Return the docstring of every method's file here by the method's name: what pages about methods say."""
    files = sorted(path for path in (ROOT / "methods").glob("*.py") if not path.stem.startswith("_"))
    return {path.stem: ast.get_docstring(ast.parse(path.read_text())) or "" for path in files}


def _hashes(files: Iterable[Path]) -> dict[str, str]:
    names = {path.relative_to(ROOT).as_posix(): path for path in sorted(files)}
    return {name: fingerprint.sources().hash(name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")) for name in names}
