"""The docstring of a method's file, taken apart into what a page shows.

Its form: a sentence; the reference; the idea, in as many paragraphs as it takes, where
equations are indented by four; then the sections that `Arguments:`, `Assumed:` and
`Checked against:` begin, each alone on its line. Their items are indented by four:
`name: what it sets` in the first, `- one thing` in the others.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from leaderboard.records.errors import UserError, one_line
from leaderboard.records.files import read_text

ARGUMENTS, ASSUMED, CHECKED = SECTIONS = ("Arguments:", "Assumed:", "Checked against:")
HEADING = re.compile(rf"^({'|'.join(SECTIONS)})$", re.MULTILINE)
EQUATION = " " * 4  # how its lines begin
ITEM = re.compile(rf"^{EQUATION}(?=\S)", re.MULTILINE)


@dataclass(frozen=True)
class Docstring:
    """What a method does, where it was published, how it works, what its settings set,
    what it takes to be so though the paper does not tell, and what it was checked
    against; empty where nothing is said. Of the idea, equations keep their lines and
    indent.
    """

    summary: str = ""
    reference: str = ""
    idea: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    assumed: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()


def read_docstrings(methods: Path) -> dict[str, Docstring]:
    """Return the docstrings of the files in the folder `methods` by method, read and
    not imported; without that folder there are none.
    """
    files = sorted(path for path in methods.glob("*.py") if not path.stem.startswith("_"))
    return {path.stem: read_docstring(path) for path in files}


def read_docstring(path: Path) -> Docstring:
    """Return the docstring of a method's file; raise UserError if it is not Python."""
    try:
        return parsed(ast.get_docstring(ast.parse(read_text(path))) or "")
    except (SyntaxError, ValueError) as error:
        raise UserError(
            f"{path} is not Python ({one_line(str(error))}): mend or remove it"
        ) from None


def parsed(text: str) -> Docstring:
    """Return a docstring's parts."""
    prose, *rest = HEADING.split(text.strip())
    items = {
        heading: tuple(_line(item) for item in ITEM.split(body) if item.strip())
        for heading, body in zip(rest[::2], rest[1::2], strict=True)
    }
    paragraphs = [
        part.rstrip() if part.startswith(EQUATION) else _line(part)
        for part in prose.split("\n\n")
        if part.strip()
    ]
    arguments = (argument.partition(":") for argument in items.get(ARGUMENTS, ()))
    return Docstring(
        paragraphs[0] if paragraphs else "",
        paragraphs[1] if len(paragraphs) > 1 else "",
        tuple(paragraphs[2:]),
        tuple((name, what.strip()) for name, _, what in arguments),
        tuple(item.removeprefix("- ") for item in items.get(ASSUMED, ())),
        tuple(item.removeprefix("- ") for item in items.get(CHECKED, ())),
    )


def arxiv(paper: str) -> str:
    """Return the address of the paper at arXiv if its number is named, else nothing."""
    found = re.search(r"arXiv:? ?(\d{4}\.\d{4,5})", paper)
    return f"https://arxiv.org/abs/{found[1]}" if found else ""


def _line(text: str) -> str:
    return " ".join(text.split())
