"""The table of methods in the docs: what each declares, what it was checked against
and how long its file is.
"""

from __future__ import annotations

import ast
import inspect
import tokenize
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

from tabulate import tabulate

from harness.run import registry
from leaderboard.records import files
from leaderboard.records.errors import UserError

BEGIN, END = "<!-- methods:begin -->", "<!-- methods:end -->"
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
HEADERS = ("method", "family", "paper", "needs", "realisation", "checked against", "lines of code")


def table(names: Iterable[str]) -> str:
    """Return the table of the methods `names` in GitHub's Markdown."""
    return tabulate(
        [_row(name) for name in names], headers=HEADERS, tablefmt="github", disable_numparse=True
    )


def _row(name: str) -> list[str]:
    method = registry.load(name)
    file = Path(inspect.getfile(method))
    cells = [
        name,
        method.family,
        method.paper,
        method.needs,
        method.realisation,
        _oracle(inspect.getmodule(method).__doc__ or ""),
    ]
    return [cell.replace("|", "\\|") for cell in cells] + [str(lines_of_code(file.read_text()))]


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


def _oracle(docstring: str) -> str:
    """Return what stands behind "Checked against:", up to the end of its paragraph, on
    one line.
    """
    return (
        " ".join(docstring.partition("Checked against:")[2].split("\n\n")[0].split())
        or "not stated"
    )


def update(page: Path, names: Iterable[str]) -> None:
    """Replace the table between the page's markers; raise UserError if it has none,
    or cannot be read.
    """
    try:
        before, begin, rest = page.read_text().partition(BEGIN)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{page} cannot be read ({error}): name the page with --page") from None
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(
            f"{page} lacks the lines {BEGIN} and {END}: add them where the table of methods belongs"
        )
    files.write_bytes(page, f"{before}{BEGIN}\n{table(names)}\n{END}{after}".encode())
