"""What the text of a method may not do: the one definition of it, held against
`methods/` by the tests and against other packages before they are imported.

A rule sees text. What a program makes up as it runs is for the run to catch: a method
gets no test image and no test label into its process.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from importlib.util import resolve_name

MAY_IMPORT = {
    "__future__",
    "abc",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "math",
    "methods",
    "numpy",
}
MAY_IMPORT |= {
    "bisect",
    "operator",
    "pydantic",
    "scipy",
    "tensorly",
    "timm",
    "torch",
    "torch_pruning",
    "torchvision",
    "typing",
}
MAY_NOT_IMPORT = (
    "torch.utils.cpp_extension",
    "torch.utils.data",
    "numpy.ctypeslib",
    "numpy.lib",
    "numpy.testing",
    "scipy.io",
    "timm.data",
)
MAY_NOT_CALL = {
    "open",
    "exec",
    "eval",
    "__import__",
    "compile",
    "globals",
    "locals",
    "vars",
    "dir",
    "breakpoint",
    "input",
    "print",
}
MAY_NOT_USE = {
    "manual_seed",
    "seed",
    "cuda",
    "getenv",
    "environ",
    "load",
    "save",
    "default_cfg",
    "pretrained_cfg",
    "create_model",
}
# files
MAY_NOT_USE |= {
    "fromfile",
    "memmap",
    "genfromtxt",
    "loadtxt",
    "loadmat",
    "tofile",
    "savetxt",
    "savez",
    "from_file",
    "hub",
    "datasets",
}
MAY_NOT_USE |= {
    "sys",
    "os",
    "io",
    "importlib",
    "builtins",
    "inspect",
    "gc",
    "ctypes",
    "gi_frame",
    "cr_frame",
    "tb_frame",
    "f_back",
    "f_locals",
}
MAY_NOT_USE |= {
    "attrgetter",
    "methodcaller",
    "ImportString",
    "multiprocessing",
    "distributed",
    "benchmark",
    "cpp_extension",
}
# of names in double underscores
MAY_USE = {"__class__", "__name__", "__init__", "__getitem__", "__setitem__"}
MAY_USE |= {"__pydantic_config__", "__all__", "__version__"}
BY_NAME = {"getattr", "setattr", "delattr"}

IMPORT = (
    "a method imports torch, timm and other libraries that compute, `methods`, and its own "
    "package; no harness, files, clock, network or process"
)
CODE = "a method opens no file, runs no text as code, and does not list what is in scope"
REACH = (
    "a method does not seed, choose devices, reach for files, clocks or the interpreter, nor know "
    "a model by its name"
)
DUNDER = "a method uses no name in double underscores beyond a class's own"
INSIDE = "a method does not look behind what `data` and libraries offer"
FORGE = "a method does not change `data` or a library"
MADE_UP = "a method does not reach into `data` or a library by a name made up"
TRAINED = "a method asks for no weights trained elsewhere"


@dataclass(frozen=True, order=True)
class Breach:
    """A line of a method's text, what stands there, and the rule that it breaks."""

    line: int
    text: str
    rule: str


@dataclass(frozen=True)
class Import:
    """A module or what is in it, by its full name, the line that imports it, and the
    name it is bound to.
    """

    line: int
    name: str
    bound: str


def imports(source: str | bytes, package: str) -> list[Import]:
    """Return what a source imports; `package` is the one that its relative imports
    start from.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [
                Import(node.lineno, alias.name, alias.asname or alias.name.split(".")[0])
                for alias in node.names
            ]
        elif isinstance(node, ast.ImportFrom):
            module = _absolute("." * node.level + (node.module or ""), package)
            found += [
                Import(node.lineno, f"{module}.{alias.name}", alias.asname or alias.name)
                for alias in node.names
            ]
    return found


def hands_on(source: str | bytes) -> bool:
    """Say whether a method's file is nothing but `from package.module import Class as
    Class` of another package, whose own text is held to the rules.
    """
    body = ast.parse(source).body
    said = [
        node
        for node in body
        if not (
            isinstance(node, ast.Expr)
            or (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        )
    ]
    match said:
        case [
            ast.ImportFrom(module=str(module), names=[ast.alias(name=name, asname=asname)], level=0)
        ]:
            return name == asname and module.split(".")[0] not in {
                *MAY_IMPORT,
                "harness",
                "leaderboard",
            }
    return False


def _absolute(module: str, package: str) -> str:
    try:
        return resolve_name(module, package)
    except ImportError:  # more dots than there are packages
        return module


def breaches(
    source: str | bytes, package: str = "methods", allowed: frozenset[str] = frozenset()
) -> list[Breach]:
    """Return what a method's source may not do, by line; it may import from its own
    `package`, and use the attributes `allowed` whatever the rules say.
    """
    own, refused = {"methods", package.split(".")[0]} - {""}, MAY_NOT_USE - allowed
    found = imports(source, package)
    reader = _Reader(
        refused,
        {one.bound for one in found if one.name.split(".")[0] not in own} | {"data", "torch"},
    )
    reader.visit(ast.parse(source))
    return sorted(
        {
            Breach(one.line, one.name, IMPORT)
            for one in found
            if not _may_import(one.name, own, refused)
        }
        | reader.broken
    )


def _may_import(name: str, own: set[str], refused: set[str]) -> bool:
    parts = name.split(".")
    if parts[0] in own:
        return True
    named = parts[0] in MAY_IMPORT and parts[-1] != "*" and not name.startswith(MAY_NOT_IMPORT)
    return named and not {part.strip("_") for part in parts} & refused


class _Reader(ast.NodeVisitor):
    """Collects the breaches of a syntax tree, but for its imports."""

    def __init__(self, refused: set[str], libraries: set[str]) -> None:
        self.refused, self.libraries, self.broken = refused, libraries, set[Breach]()

    def breach(self, node: ast.expr, rule: str) -> None:
        self.broken.add(Breach(node.lineno, ast.unparse(node), rule))

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # else a docstring
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and re.search(r"__\w+__", node.value):
            self.breach(node, DUNDER)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in MAY_NOT_CALL | BY_NAME:
            self.breach(node, CODE if node.id in MAY_NOT_CALL else MADE_UP)
        elif _dunder(node.id):
            self.breach(node, DUNDER)

    def visit_Call(self, node: ast.Call) -> None:
        if any(keyword.arg == "pretrained" for keyword in node.keywords):
            self.breach(node, TRAINED)
        if isinstance(node.func, ast.Name) and node.func.id in BY_NAME:
            self._by_name(node)
        else:
            self.visit(node.func)
        for part in [*node.args, *node.keywords]:
            self.visit(part)

    def _by_name(self, node: ast.Call) -> None:
        """Read getattr(x, "name") as x.name; any other name may be of what is neither
        `data` nor a library.
        """
        match node.args:
            case [owner, ast.Constant(value=str(name)), *_] if name.isidentifier():
                self._attribute(node, owner, name)
        if not node.args or _root(node.args[0]) in self.libraries:
            self.breach(node, MADE_UP)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._attribute(node, node.value, node.attr)
        if not isinstance(node.ctx, ast.Load) and _root(node) in self.libraries:
            self.breach(node, FORGE)
        self.generic_visit(node)

    def _attribute(self, node: ast.expr, owner: ast.expr, name: str) -> None:
        if name.strip("_") in self.refused:
            self.breach(node, REACH)
        elif _dunder(name):
            self.breach(node, DUNDER)
        elif name.startswith("_") and _root(owner) in self.libraries:
            self.breach(node, INSIDE)


def _dunder(name: str) -> bool:
    return name.startswith("__") and name not in MAY_USE


def _root(node: ast.expr) -> str:
    """Return the name that a chain of attributes and items begins with, or nothing."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
