"""Finding methods: `methods/<name>.py` holds one class; packages elsewhere offer theirs
through the entry-point group `shrinkmark.methods`.

Those are imported if their text keeps the rules of harness/run/code/rules.py, to which the
tests hold `methods/`; else a stand-in fails all their points. `first__second` is the
chain of two methods, see harness/point/chain.py.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

import methods
from harness.point import chain
from harness.run.code.foreign_methods import RefusedMethod, refusal, stand_in
from leaderboard.records.errors import UserError, describe, one_line, unknown
from methods import Method

GROUP = "shrinkmark.methods"


def names() -> list[str]:
    """Return the names of all methods, without importing any."""
    files = {
        path.stem
        for path in Path(methods.__path__[0]).glob("*.py")
        if not path.stem.startswith("_")
    }
    return sorted(files | {entry.name for entry in entry_points(group=GROUP)})


def load(name: str) -> type[Method]:
    """Import the method or chain `name`; raise UserError if there is none, its import
    fails, or it does not hold exactly one complete Method.
    """
    steps = [_load(step) for step in chain.steps_of(name)]
    return steps[0] if len(steps) == 1 else chain.chained(steps)


def refusals(names: Iterable[str]) -> Iterator[str]:
    """Yield the line that says why, for each method of another package among the
    methods and steps of chains `names` that breaks the rules.
    """
    loaded = {step: _load(step) for name in names for step in chain.steps_of(name)}
    yield from (method.reason for method in loaded.values() if issubclass(method, RefusedMethod))


def _load(name: str) -> type[Method]:
    if name not in names():
        raise unknown("method", name, names())
    try:
        method = (
            _from_file(name)
            if (Path(methods.__path__[0]) / f"{name}.py").exists()
            else _from_entry_point(name)
        )
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        # a file that ends the process at import would pass for a run that went well
        raise UserError(
            f"method '{name}' cannot be imported: {type(error).__name__}: {one_line(str(error))}"
        ) from error
    return _complete(name, method)


def _from_file(name: str) -> type[Method]:
    module = importlib.import_module(f"methods.{name}")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Method) and value is not Method
    ]
    if len(found) != 1:
        raise UserError(
            f"methods/{name}.py must hold exactly one class derived from Method, found "
            f"{len(found)}: keep one"
        )
    home = found[0].__module__
    # a file that hands on a class of another package
    reason = None if home == module.__name__ else refusal(name, home)
    return found[0] if reason is None else stand_in(reason)


def _from_entry_point(name: str) -> type[Method]:
    (entry,) = entry_points(group=GROUP, name=name)
    reason = refusal(name, entry.module)
    if reason is not None:
        return stand_in(reason)
    found = entry.load()
    if not (inspect.isclass(found) and issubclass(found, Method)):
        raise UserError(
            f"entry point '{name}' of group {GROUP} is {found!r}, not a class derived from "
            "methods.Method"
        )
    return found


def _complete(name: str, method: type[Method]) -> type[Method]:
    missing = [
        field
        for field in Method.__annotations__
        if not field.startswith("_") and not hasattr(method, field)
    ]
    if missing or inspect.isabstract(method):
        raise UserError(
            f"method '{name}' lacks {', '.join(missing) or 'compress()'}: see the contract in "
            "methods/__init__.py"
        )
    return method


def configure(name: str, setting: dict[str, Any]) -> Method:
    """Return the method or chain `name` at `setting`, validated; raise UserError for an
    unknown or impossible hyper-parameter.
    """
    if len(chain.steps_of(name)) == 1:
        return _configure(name, setting)
    made = load(name)
    return made(tuple(_configure(step, own) for step, own in chain.split(name, setting).items()))  # type: ignore[call-arg]


def _configure(name: str, setting: dict[str, Any]) -> Method:
    method = load(name)
    if issubclass(method, RefusedMethod):  # what it could be set to is not known
        return method()
    fields = list(inspect.signature(method).parameters)
    for key in setting:
        if key not in fields:
            raise unknown(f"setting of {name}", key, fields)
    try:
        return TypeAdapter(method).validate_python(setting)
    except ValidationError as error:
        raise UserError(
            f"setting {setting} of method '{name}' is impossible: {describe(error)}"
        ) from None
