"""Methods of other packages: what importing one would run, read before it is imported,
and the stand-in for one whose text breaks the rules.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SOURCE_SUFFIXES, all_suffixes
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from harness.run.code import rules
from leaderboard.records.errors import UserError, one_line
from methods import Data, Method

COMPILED = "a method and what it imports of its own package are there as text"


@dataclass(frozen=True)
class RefusedMethod(Method):
    """Stand for a method that is never imported, for its text breaks the rules: each of
    its points, at whatever setting, fails for `reason`.
    """

    reason: ClassVar[str]

    family = "refused"
    paper = "-"
    needs = "data-free"
    identity: ClassVar[Mapping[str, Any]] = {}

    def skip(self, model: nn.Module) -> str | None:
        """Raise UserError with the reason."""
        raise UserError(self.reason)

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Raise UserError with the reason."""
        raise UserError(self.reason)


@dataclass(frozen=True)
class ModuleFile:
    """A module of a package, and its file."""

    module: str
    path: Path

    @property
    def package(self) -> str:
        """Return the package that its relative imports start from."""
        return self.module if self.path.stem == "__init__" else self.module.rpartition(".")[0]

    @property
    def name(self) -> str:
        """Return its file's name from the package on, which says nothing of the
        machine.
        """
        return "/".join([*self.package.split("."), self.path.name]).removeprefix("/")


@cache
def refusal(method: str, module: str) -> str | None:
    """Return the line that says why `method`, which lies in `module`, is not imported:
    file, line and rule of the first breach; None if there is none.
    """
    found = [(part, breach) for part in parts(module) for breach in _breaches(part)]
    if not found:
        return None
    part, first = found[0]
    more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
    return (
        f"method '{method}' is refused: {part.name} line {first.line}: "
        f"{one_line(first.text)[:80]}: {first.rule}{more}"
    )


def stand_in(reason: str) -> type[Method]:
    """Return the stand-in for a method that is refused for `reason`."""
    return type("RefusedMethod", (RefusedMethod,), {"reason": reason, "__module__": __name__})


def _breaches(part: ModuleFile) -> list[rules.Breach]:
    if part.path.suffix not in SOURCE_SUFFIXES:
        return [rules.Breach(1, part.path.name, COMPILED)]
    return rules.breaches(part.path.read_bytes(), part.package)


def parts(module: str, beside: Container[str] = ()) -> list[ModuleFile]:
    """Return what importing `module` runs of its own package, and of the packages and
    modules `beside` it, found without importing: itself, the packages that it lies in,
    and what they import.
    """
    waiting, found = [module], list[ModuleFile]()
    while waiting:
        for part in _along(waiting.pop()):
            if part not in found:
                found.append(part)
                waiting += _of_own(part, beside)
    return found


def _of_own(part: ModuleFile, beside: Container[str]) -> list[str]:
    own = part.module.split(".")[0]
    text = part.path.read_bytes() if part.path.suffix in SOURCE_SUFFIXES else b""
    named = [one.name for one in rules.imports(text, part.package)]
    return [name for name in named if (top := name.split(".")[0]) == own or top in beside]


def _along(name: str) -> Iterator[ModuleFile]:
    """Yield the package of a dotted name, the packages inside it and the module on the
    way; what is no file, as a function in a module, is passed over.
    """
    package, *rest = name.split(".")
    spec = importlib.util.find_spec(package)
    folders = [Path(place) for place in (spec.submodule_search_locations if spec else None) or []]
    if spec and spec.has_location and spec.origin:
        yield ModuleFile(package, Path(spec.origin))
    for depth in range(1, len(rest) + 1):
        inner = rest[:depth]
        choices = [folder.joinpath(*inner) for folder in folders]
        files = [
            file
            for base in choices
            for suffix in all_suffixes()
            for file in (base / f"__init__{suffix}", base.with_name(base.name + suffix))
        ]
        yield from (
            ModuleFile(".".join([package, *inner]), file) for file in files if file.is_file()
        )
