"""What decides a point: a fingerprint over its method's code and the shared parts used, setting, seed, dense weights, data, recipe and version."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import harness
import methods
from harness import chain, outside, registry
from harness.code import DECIDING, code_hash
from harness.errors import UserError
from harness.params import Params
from harness.points import Point
from methods import Method

UNDECIDING = {"models", "seeds", "seconds"}  # of a track; the model and the seed at hand count
LIBRARIES = ("torch", "timm", "numpy", "scikit-learn")
OF_SOME = {"torch_pruning": "torch-pruning", "tensorly": "tensorly"}  # module and package: decide the points of methods that import them alone


def parts_used(path: Path) -> set[Path]:
    """Return `path` and every file of the package `methods` that it imports, directly or not."""
    package = Path(methods.__path__[0])
    found, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for name in _imported(file):
            candidate = package / f"{name}.py"
            if candidate.exists():
                waiting.append(candidate)
    return found


def _imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "methods":
            names |= {"__init__", *(alias.name for alias in node.names)}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("methods."):
            names |= {"__init__", str(node.module).split(".")[1]}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("methods.")}
    return names


@cache
def method_hash(name: str) -> str:
    """Return the hash of a method's file and of the shared parts it uses; of a chain, of the files of all its steps and of what joins them."""
    return _hash({file: code_hash(path) for file, path in _files(name).items()})


def _files(name: str) -> dict[str, Path]:
    """Return the files that decide a method, or all steps of a chain, by their names."""
    steps = chain.steps_of(name)
    files = {"chain.py": Path(chain.__file__)} if len(steps) > 1 else {}
    for own in (_own_files(registry.load(step)) for step in steps):
        used = set[Path]().union(*(parts_used(path) for path in own.values())) - set(own.values())
        files |= own | {path.name: path for path in used}
    return files


def _own_files(method: type[Method]) -> dict[str, Path]:
    """Return the file of `method`; in another package all of its files that are imported, by their places there, for they may be called as files here."""
    if method.__module__.split(".")[0] in ("methods", "harness"):
        return {(file := Path(inspect.getfile(method))).name: file}
    return {part.name: part.path for part in outside.parts(method.__module__)}


@cache
def libraries_of(name: str) -> dict[str, str]:
    """Return the versions of the libraries that decide the points of method `name`."""
    nodes = [node for path in _files(name).values() for node in ast.walk(ast.parse(path.read_text()))]
    named = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    named += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    imported = {module.split(".")[0] for module in named}
    own = {package: importlib.metadata.version(package) for module, package in OF_SOME.items() if module in imported}
    return libraries() | own


def harness_hash() -> str:
    """Return the hash of the harness's files that decide a record, and of the contract."""
    folder = Path(harness.__path__[0])
    return _hash({name: code_hash(folder / f"{name}.py") for name in DECIDING})


def libraries() -> dict[str, str]:
    """Return the versions of the libraries that decide a result, without build tags."""
    return {name: importlib.metadata.version(name).split("+")[0] for name in LIBRARIES}


def track_hash(params: Params, track: str) -> str:
    """Return the hash of all that params.yaml says of a track, which track.json carries for the stages that come after training."""
    return _hash(params.track(track).model_dump())


def dense_fingerprint(params: Params, track: str, model: str, content_hash: str) -> str:
    """Return what decides a dense model: its arguments, the track's data and recipe, the training code, and the first seed."""
    recipe = params.track(track).model_dump(exclude=UNDECIDING | {"fine_tune"})
    content = {
        "version": params.version,
        "seed": params.track(track).seeds[0],
        "model": params.track(track).models[model].model_dump(),
        "recipe": recipe,
        "data": content_hash,
        "code": [harness_hash(), *(code_hash(path) for path in sorted(parts_used(Path(methods.__path__[0]) / "_train.py")))],
        "libraries": libraries(),
    }
    return _hash(content)


def point_fingerprint(params: Params, point: Point, track_record: dict[str, Any]) -> str:
    """Return what decides a point; `track_record` is what the train stage wrote (dense weights, data), else UserError."""
    track = params.track_of(point.track, point.method)
    try:
        dense, data = track_record["models"][point.model]["weights_sha256"], track_record["content_hash"]
    except (KeyError, TypeError) as error:
        raise UserError(f"track.json of '{point.track}' lacks {error}: run the train stage (`dvc repro train@{point.track}`)") from error
    content = {
        "version": params.version,
        "method": method_hash(point.method),
        "setting": point.setting,
        "seed": point.seed,
        "model": track.models[point.model].model_dump(),
        "recipe": track.model_dump(exclude=UNDECIDING),
        "dense": dense,
        "data": data,
        "code": harness_hash(),
        "libraries": libraries_of(point.method),
    }
    return _hash(content)


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
