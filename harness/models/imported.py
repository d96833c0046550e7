"""Architectures of somebody's own: files or functions that tell timm of them. They are
held to no rule of methods, and what they are made of is part of the fingerprint.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import timm
from timm.models import register_model
from torch import nn

from leaderboard.records.errors import UserError, one_line

FORM = "name a file, my_models.py, or a function, package.module:function"
OURS_AND_TIMMS = ("timm", "harness")  # packages whose models nobody has to import
# what timm tells every function about weights
OPTIONS = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}


def import_models(names: Iterable[str]) -> None:
    """Import files (whose functions timm's `@register_model` marks) and functions
    (`package.module:function`), so that timm knows their models; none is imported twice.

    Raises UserError if there is no such file, module or function, or its import fails.
    """
    for name in names:
        try:
            _import(name)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(
                f"--import {name} cannot be imported: {type(error).__name__}: "
                f"{one_line(str(error))[:200]}"
            ) from error


def importing(names: Iterable[str]) -> Callable[[], None]:
    """Return the import of `names` for a process to begin with."""
    return functools.partial(import_models, tuple(names))


def model_named(name: str) -> str:
    """Return how timm calls a model that is asked for by its name, or by the function
    that makes it.
    """
    return name.rpartition(":")[2] if is_function(name) else name


def is_function(name: str) -> bool:
    """Say whether a text names a function, and is no hub's or timm's name."""
    module, _, function = name.rpartition(":")
    return function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def home(name: str) -> str | None:
    """Return the module of the model that timm knows as `name` where it is somebody's
    own.
    """
    module = str(timm.model_entrypoint(name).__module__) if timm.is_model(name) else "timm"
    return None if module.split(".")[0] in OURS_AND_TIMMS else module


def _import(name: str) -> None:
    if name.endswith(".py"):
        _import_file(Path(name).expanduser().absolute())
    elif is_function(name):
        _register(name)
    else:
        raise UserError(f"--import {name} is neither a file nor a function: {FORM}")


def _import_file(file: Path) -> None:
    """Import a file as the module that its neighbours know it by, them too within its
    reach.
    """
    module, known = file.stem, sys.modules.get(file.stem)
    if known is not None and Path(getattr(known, "__file__", None) or "").absolute() == file:
        return
    if not file.is_file():
        raise UserError(f"--import {file}: there is no such file: {FORM}")
    other = importlib.util.find_spec(module) if module.isidentifier() and known is None else None
    if other is not None and Path(other.origin or "").absolute() != file:
        raise UserError(
            f"--import {file}: '{module}' is another module too: call the file otherwise"
        )
    if known is not None or not module.isidentifier():
        reason = "is no module's name" if known is None else "is that of another module"
        raise UserError(f"--import {file}: the name '{module}' {reason}: call the file otherwise")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None and spec.loader is not None
    made = sys.modules[module] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[module]
        raise


def _register(name: str) -> None:
    module_name, _, function_name = name.rpartition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    module = importlib.import_module(module_name)
    function = _function(module, function_name)
    if timm.is_model(function_name):
        if timm.model_entrypoint(function_name).__module__ == function.__module__:
            return
        raise UserError(f"--import {name}: timm has a '{function_name}': call yours otherwise")
    register_model(_as_timm_calls_it(function))


def _function(module: ModuleType, name: str) -> Callable[..., nn.Module]:
    found = getattr(module, name, None)
    if not callable(found):
        raise UserError(f"--import {module.__name__}:{name}: the module has no such function")
    made: Callable[..., nn.Module] = found
    return made


def _as_timm_calls_it(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Return the function without the arguments of timm's that it does not have, such as
    `pretrained`.
    """
    parameters = inspect.signature(function).parameters.values()
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    optional = OPTIONS if takes_any else {*OPTIONS, "in_chans", "num_classes"}
    left_out = optional - {one.name for one in parameters}

    @functools.wraps(function)
    def entry(**options: Any) -> nn.Module:
        return function(**{key: options[key] for key in options if key not in left_out})

    return entry
