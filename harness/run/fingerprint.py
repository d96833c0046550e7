"""What decides a point: a fingerprint over its method's code and the shared parts used,
setting, seed, model, dense weights, data, recipe and version.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import harness
import leaderboard
import methods
from harness import models
from harness.data.transform import transform_of
from harness.models import imported
from harness.point import chain
from harness.point.method_data import CLASSES
from harness.run import registry
from harness.run.code.own_models import code_hash
from harness.run.code.source import Sources
from harness.run.points import Point
from leaderboard.records.errors import UserError
from leaderboard.records.params import Params, TrackParams
from leaderboard.records.schema import TrackInfo
from methods import Needs

OURS = {
    package.__name__: [Path(place) for place in package.__path__]
    for package in (methods, harness, leaderboard)
}
SILENT = ["leaderboard"]  # decides no point
LIBRARIES = ("torch", "timm", "numpy", "scikit-learn")
# module and package: decide the points of methods that import them alone
OF_SOME = {"torch_pruning": "torch-pruning", "tensorly": "tensorly"}


@cache
def sources(package: str = "methods") -> Sources:
    """Return our sources, and those of the `package` of a method from elsewhere."""
    spec = None if package in OURS else importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or [spec.origin or ""]) if spec else []
    return Sources(OURS | ({package: [Path(place) for place in places]} if places else {}), SILENT)


def modules_of(name: str) -> list[str]:
    """Return the module of a method, or of every step of a chain and of what joins
    them; of a method from elsewhere also the packages that it lies in.
    """
    steps = chain.steps_of(name)
    homes = [registry.load(step).__module__ for step in steps]
    around = [
        ".".join(parts[:depth])
        for home in homes
        if (parts := home.split("."))[0] not in OURS
        for depth in range(1, len(parts))
    ]
    return [*around, *homes] + ([chain.__name__] if len(steps) > 1 else [])


@cache
def method_hash(name: str) -> str:
    """Return the hash of a method's source and of all of ours that it rests on; of a
    chain, of all its steps and of what joins them.
    """
    return _hash([sources(module.split(".")[0]).hash(module) for module in modules_of(name)])


def files_of(name: str) -> dict[str, Path]:
    """Return the files that decide a method, or all steps of a chain, by module."""
    return {
        module: path
        for home in modules_of(name)
        for module, path in sources(home.split(".")[0]).closure(home).items()
    }


@cache
def libraries_of(name: str) -> dict[str, str]:
    """Return the versions of the libraries that decide the points of method `name`."""
    nodes = [
        node for path in files_of(name).values() for node in ast.walk(ast.parse(path.read_text()))
    ]
    named = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    named += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    imported = {module.split(".")[0] for module in named}
    own = {
        package: importlib.metadata.version(package)
        for module, package in OF_SOME.items()
        if module in imported
    }
    return libraries() | own


def model_hash(name: str) -> str | None:
    """Return the hash of the file, ours or somebody's own, that defines the model which
    timm knows as `name`, and of all that it rests on; None for a model of timm's own.
    """
    module, own = models.home(name), imported.home(name)
    if module is not None:
        return sources().hash(module)
    return None if own is None else code_hash(own)


def libraries() -> dict[str, str]:
    """Return the versions of the libraries that decide a result, without build tags."""
    return {name: importlib.metadata.version(name).split("+")[0] for name in LIBRARIES}


def dense_fingerprint(
    params: Params, track: str, model: str, content_hash: str, source_sha256: str
) -> str:
    """Return what decides a dense model: its arguments and its own file, the track's
    data and recipe, the training code, and the first seed, and the sha256 of the file
    that it is loaded from, if it is.
    """
    about, recipe = params.track(track), params.track(track).models[model]
    content = {
        "version": params.version,
        "seed": about.seeds[0],
        "model": {
            "timm": recipe.timm,
            "args": recipe.args,
            "weights": recipe.weights,
            "sha256": [recipe.sha256, source_sha256],
        },
        "transform": asdict(transform_of(about, model)),
        "recipe": {
            "device": about.device,
            "augment": about.augment.model_dump(),
            "scratch": about.scratch_of(model).model_dump(),
        },
        "data": content_hash,
        "code": sources().hash("harness.point.dense"),
        "own model": model_hash(recipe.timm),
        "libraries": libraries(),
    }
    return _hash(content)


def point_fingerprint(params: Params, point: Point, about: TrackInfo) -> str:
    """Return what decides a point; `about` is what the train stage wrote (dense
    weights, data); raise UserError if it lacks the point's model.
    """
    track = params.track_of(point.track, point.method)
    if point.model not in about.models:
        raise UserError(
            f"track.json of '{point.track}' lacks the model '{point.model}': run the train stage "
            f"(`make repro TRACK={point.track}`)"
        )
    content = {
        "version": params.version,
        "method": method_hash(point.method),
        "setting": point.setting,
        "seed": point.seed,
        "recipe": recipe_of(track, point.model, registry.load(point.method).needs),
        "dense": about.models[point.model].weights_sha256,
        "data": about.content_hash,
        "code": sources().hash("harness.point.worker"),
        "own model": model_hash(track.models[point.model].timm),
        "libraries": libraries_of(point.method),
    }
    return _hash(content)


def recipe_of(track: TrackParams, model: str, needs: Needs) -> dict[str, Any]:
    """Return what a method of the budget class `needs` can know of a track beside its
    data: see `harness.point.method_data`.
    """
    about, uses = track.models[model], CLASSES.index(needs)
    recipe: dict[str, Any] = {
        "device": track.device,
        "timm": about.timm,
        "args": about.args,
        "transform": asdict(transform_of(track, model)),
    }
    if uses >= CLASSES.index("fine-tune"):
        recipe |= {
            "augment": track.augment.model_dump(),
            "fine_tune": track.fine_tune_of(model).model_dump(),
        }
    if uses >= CLASSES.index("scratch"):
        recipe |= {"narrow": about.narrow, "scratch": track.scratch_of(model).model_dump()}
    return recipe


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
