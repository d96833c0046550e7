"""The code of a model that somebody told timm of, as what decides a point."""

from __future__ import annotations

import hashlib
import importlib.util
import sysconfig
from pathlib import Path

from harness.run.code.foreign_methods import parts

INSTALLED = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}


def code_hash(module: str) -> str:
    """Return the sha256 of the files that importing `module` runs: of its package, or,
    where it is a single file that is not installed, of the folder that it lies in.
    """
    found = parts(module, _beside(module))
    held = [f"{part.name} {hashlib.sha256(part.path.read_bytes()).hexdigest()}" for part in found]
    return hashlib.sha256("\n".join(sorted(held)).encode()).hexdigest()


def _beside(module: str) -> set[str]:
    """Return the modules and packages in the folder of a single file."""
    spec = importlib.util.find_spec(module.split(".")[0])
    if spec is None or spec.origin is None or spec.submodule_search_locations:
        return set()
    folder = Path(spec.origin).parent
    if folder in INSTALLED:
        return set()
    inside = [one for one in folder.iterdir() if one.is_dir() and one.name.isidentifier()]
    return {file.stem for file in folder.glob("*.py")} | {one.name for one in inside}
