"""Python sources hashed by what they mean, the same on every supported Python.

What is hashed is the syntax tree without docstrings, comments and layout, and without
what one version of Python's parser adds and another does not. An import of ours is not
hashed as text: wherever a name that it binds is used stands the hash of the file that
the name comes from. So the hash of a file covers all that it rests on, a file may move
or be called otherwise, and a changed line changes the hashes of what uses its file, and
of nothing else.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from leaderboard.records.errors import UserError

# fields of the tree that say how a thing is written, or follow from where it stands
NOT_MEANT = {"ctx", "kind", "type_comment", "type_ignores"}


class Sources:
    """Packages of ours by name, each with its folders (or its only file), and their
    modules' hashes.

    The files of packages `silent` decide nothing, so that names from them count as
    names.

    Raises UserError where a file imports a module or name of these packages that there
    is not, or where files import each other in a circle.
    """

    def __init__(self, packages: Mapping[str, Sequence[Path]], silent: Sequence[str] = ()) -> None:
        self._packages, self._silent = packages, silent
        self._files: dict[str, _File] = {}
        self._trees: dict[Path, ast.Module] = {}
        self._names: dict[Path, set[str]] = {}
        self._open: list[str] = []  # modules being read, each imported by the one before it

    def hash(self, module: str) -> str:
        """Return the sha256 of a module and, through it, of all modules of ours that it
        imports, directly or not.
        """
        return self._read(module).hash

    def closure(self, module: str) -> dict[str, Path]:
        """Return the file of `module`, and of every module of ours that it imports,
        directly or not, by module.
        """
        found, waiting = dict[str, Path](), [module]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = self._read(name).path
                waiting += self._read(name).imported
        return found

    def find(self, module: str) -> Path | None:
        """Return the file of a module, or None if there is none."""
        package, *rest = module.split(".")
        bases = [place.joinpath(*rest) for place in self._packages.get(package, ())]
        choices = [
            path
            for base in bases
            for path in (base.with_suffix(".py") if rest else base, base / "__init__.py")
        ]
        return next((path for path in choices if path.is_file()), None)

    def _read(self, module: str) -> _File:
        if module in self._open:
            raise UserError(
                "modules import each other in a circle: "
                f"{' → '.join([*self._open[self._open.index(module) :], module])}: break it"
            )
        if module not in self._files:
            self._open.append(module)
            self._files[module] = self._parsed(module)
            self._open.pop()
        return self._files[module]

    def _parsed(self, module: str) -> _File:
        path = self.find(module)
        if path is None:
            raise UserError(f"there is no module {module}: correct the import that names it")
        tree = self._tree(path)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        ours = {
            node: found for node in ast.walk(tree) if (found := list(self._of_ours(node, package)))
        }
        imported = {
            home for found in ours.values() for home, _, _ in found if not self._is_silent(home)
        }
        hashes = {home: self._read(home).hash for home in imported}
        bound = {
            as_name: [hashes.get(home, "ours"), name]
            for found in ours.values()
            for home, name, as_name in found
            if as_name
        }
        meaning = [_Meaning(bound, ours).of(tree), sorted(hashes.values())]
        return _File(
            path, hashlib.sha256(json.dumps(meaning).encode()).hexdigest(), sorted(imported)
        )

    def _of_ours(self, node: ast.AST, package: str) -> Iterator[tuple[str, str, str]]:
        """Yield of an import of ours the module, the name that is taken from it (none:
        the module itself), and the name that it is bound to (or none).
        """
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in self._packages:
                    self._existing(alias.name, node)
                    yield alias.name, "", alias.asname or ("" if "." in alias.name else alias.name)
        elif isinstance(node, ast.ImportFrom):
            home = (
                resolve_name("." * node.level + (node.module or ""), package)
                if node.level
                else str(node.module)
            )
            if home.split(".")[0] not in self._packages:
                return
            for alias in node.names:
                inner = f"{home}.{alias.name}"
                if self.find(inner) is not None:
                    yield inner, "", alias.asname or alias.name
                elif alias.name == "*":
                    self._existing(home, node)
                    yield home, "", ""
                elif alias.name in self._defined(self._existing(home, node)):
                    yield home, alias.name, alias.asname or alias.name
                else:
                    raise UserError(
                        f"line {node.lineno} of {self._open[-1]} imports {alias.name} from "
                        f"{home}, which has no such name: correct the import"
                    )

    def _existing(self, module: str, node: ast.Import | ast.ImportFrom) -> Path:
        path = self.find(module)
        if path is None:
            raise UserError(
                f"line {node.lineno} of {self._open[-1]} imports {module}, which there is not: "
                "correct the import"
            )
        return path

    def _tree(self, path: Path) -> ast.Module:
        if path not in self._trees:
            self._trees[path] = ast.parse(path.read_bytes())
        return self._trees[path]

    def _defined(self, path: Path) -> set[str]:
        """Return the names that a file binds, wherever."""
        if path not in self._names:
            self._names[path] = {
                name for node in ast.walk(self._tree(path)) for name in _bound(node)
            }
        return self._names[path]

    def _is_silent(self, module: str) -> bool:
        return any(module == name or module.startswith(f"{name}.") for name in self._silent)


@dataclass(frozen=True)
class _File:
    """A file that was read: its hash, and the modules of ours that it imports."""

    path: Path
    hash: str
    imported: list[str]


class _Meaning:
    """Turns a syntax tree into lists and strings: the type of each node with those of
    its fields that hold something, names of ours by where they come from.
    """

    def __init__(self, bound: Mapping[str, list[str]], ours: Container[ast.AST]) -> None:
        self._bound, self._ours = bound, ours

    def of(self, value: Any) -> Any:
        """Return the meaning of a node, a list of nodes, or what stands in a field."""
        if isinstance(value, list):
            return self._listed(value)
        if isinstance(value, ast.Constant):
            return ["Constant", type(value.value).__name__, repr(value.value)]
        if (
            isinstance(value, ast.Name)
            and isinstance(value.ctx, ast.Load)
            and value.id in self._bound
        ):
            return ["Name", self._bound[value.id]]
        if isinstance(value, ast.JoinedStr):
            return ["JoinedStr", self._joined(value.values)]
        if isinstance(value, ast.AST):
            fields = [
                (name, part)
                for name, part in ast.iter_fields(value)
                if name not in NOT_MEANT and part is not None and part != []
            ]
            return [type(value).__name__, *([name, self.of(part)] for name, part in fields)]
        return value

    def _listed(self, values: Sequence[Any]) -> list[Any]:
        """Leave out docstrings (and other strings that nothing is done with) and
        imports of ours; where that leaves no statement, there stood one.
        """
        kept = [self.of(value) for value in values if not self._says_nothing(value)]
        return kept or [["Pass"]]

    def _says_nothing(self, node: Any) -> bool:
        is_text = (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        )
        return is_text or node in self._ours

    def _joined(self, values: Sequence[ast.expr]) -> list[Any]:
        """Join the texts between the fields of an f-string, which Pythons cut
        differently.
        """
        parts: list[Any] = []
        for value in values:
            if not (isinstance(value, ast.Constant) and isinstance(value.value, str)):
                parts.append(self.of(value))
            elif parts and isinstance(parts[-1], str):
                parts[-1] += value.value
            elif value.value:
                parts.append(value.value)
        return parts


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
