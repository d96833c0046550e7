"""The methods in the docs: a table of what each declares, and a page of each, made from
its file's docstring.
"""

from __future__ import annotations

import ast
import inspect
import tokenize
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from tabulate import tabulate

from harness.run import registry
from leaderboard.records import files
from leaderboard.site.docstrings import read_docstring
from methods import Method

MARKER = "methods"  # of the table's place in a page
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
HEADERS = (
    "method",
    "what it does",
    "family",
    "paper",
    "needs",
    "realisation",
    "lines of code",
)
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def table(names: Iterable[str], pages: str | None = None) -> str:
    """Return the table of the methods `names` in GitHub's Markdown, each linked to its
    page in the folder `pages`.
    """
    found = [[*row.values()] for row in rows(names)]
    if pages is not None:
        found = [[f"[{name}]({pages}/{name}.md)", *cells] for name, *cells in found]
    return tabulate(
        [[str(cell).replace("|", "\\|") for cell in row] for row in found],
        headers=HEADERS,
        tablefmt="github",
        disable_numparse=True,
    )


def rows(names: Iterable[str]) -> list[dict[str, str | int]]:
    """Return what the table says of each method, by its headers."""
    return [dict(zip(HEADERS, _row(name), strict=True)) for name in names]


def _row(name: str) -> tuple[str | int, ...]:
    method, file = _found(name)
    does = read_docstring(file).summary.partition(": ")[2]
    facts = method.family, method.paper, method.needs, method.realisation
    return name, does, *facts, lines_of_code(file.read_text())


def _found(name: str) -> tuple[type[Method], Path]:
    method = registry.load(name)
    return method, Path(inspect.getfile(method))


def page_of(name: str) -> str:
    """Return the page of a method in Markdown."""
    method, file = _found(name)
    docstring = read_docstring(file)
    title, _, what = docstring.summary.partition(": ")
    seeds = "a row for every seed" if method.stochastic else "the same for every seed"
    facts = (
        f"`{name}` in the tables",
        method.family,
        f"needs {method.needs}",
        f"realisation {method.realisation}",
        seeds,
    )
    blocks = [
        f"# {title}",
        what[:1].upper() + what[1:],
        docstring.reference,
        " · ".join(facts),
        *docstring.idea,
        *_section("Settings", _settings(method, dict(docstring.arguments))),
        *_section("Assumed where the paper is silent, or changed", docstring.assumed),
        *_section("Checked against", docstring.checked),
    ]
    return "\n\n".join(blocks) + "\n"


def _settings(method: type[Method], texts: dict[str, str]) -> list[str]:
    """Return a line a setting: default, range, what it sets."""
    known = TypeAdapter(method).json_schema().get("properties", {})
    return [
        f"`{name}` (default {known[name].get('default')}{_range(known[name])}): {text}"
        for name, text in texts.items()
    ]


def _range(known: dict[str, Any]) -> str:
    """Return what a setting may be, from its JSON schema."""
    if "enum" in known:
        return f"; one of {', '.join(map(str, known['enum']))}"
    bounds = [f"{sign} {known[key]}" for key, sign in BOUNDS.items() if key in known]
    return f"; {', '.join(bounds)}" if bounds else ""


def _section(heading: str, items: Iterable[str]) -> list[str]:
    lines = [f"- {item}" for item in items]
    return [f"## {heading}", "\n".join(lines)] if lines else []


def lines_of_code(source: str) -> int:
    """Return how many lines of a Python file hold code: all but empty lines, comments
    and docstrings.
    """
    code: set[int] = set()
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type not in NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None
        ):
            code -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(code)


def update(page: Path, names: Iterable[str]) -> None:
    """Replace the table between the markers of `page`, and the pages of the methods in
    the folder beside it that has its name; raise UserError if it has no markers, or
    cannot be read.
    """
    text = files.read_text(page)
    files.put_between(text, MARKER, "", page)  # before a page of a method is written
    home, names = page.with_suffix(""), list(names)
    for stale in {file.stem for file in home.glob("*.md")} - set(names):
        (home / f"{stale}.md").unlink()
    for name in names:
        files.write_text(home / f"{name}.md", page_of(name))
    files.write_text(page, files.put_between(text, MARKER, table(names, home.name), page))
