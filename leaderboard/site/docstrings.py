"""The docstring of a method, taken apart into what a page shows."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from leaderboard.records.errors import UserError, one_line
from leaderboard.records.files import read_text

CHECKED, ASSUMED = "Checked against:", "ASSUMED:"


@dataclass(frozen=True)
class Docstring:
    """The first sentence, the paragraphs after it, what the method assumes and what it
    was checked against; empty where nothing is said.
    """

    summary: str = ""
    paragraphs: tuple[str, ...] = ()
    assumed: str = ""
    checked: str = ""


def read_docstrings(methods: Path) -> dict[str, Docstring]:
    """Return the docstrings of the files in the folder `methods` by method, read and
    not imported; without that folder there are none.
    """
    files = sorted(path for path in methods.glob("*.py") if not path.stem.startswith("_"))
    return {path.stem: parsed(_docstring(path)) for path in files}


def _docstring(path: Path) -> str:
    try:
        return ast.get_docstring(ast.parse(read_text(path))) or ""
    except (SyntaxError, ValueError) as error:
        raise UserError(
            f"{path} is not Python ({one_line(str(error))}): mend or remove it"
        ) from None


def parsed(text: str) -> Docstring:
    """Return a docstring's parts; a part begins at its label and ends with its
    paragraph.
    """
    summary, _, rest = text.strip().partition("\n\n")
    checked, rest = _taken(rest, CHECKED)
    assumed, rest = _taken(rest, ASSUMED)
    return Docstring(
        _line(summary),
        tuple(_line(part) for part in rest.split("\n\n") if part.strip()),
        assumed,
        checked,
    )


def arxiv(paper: str) -> str:
    """Return the address of the paper at arXiv if its number is named, else nothing."""
    found = re.search(r"arXiv:? ?(\d{4}\.\d{4,5})", paper)
    return f"https://arxiv.org/abs/{found[1]}" if found else ""


def _taken(text: str, label: str) -> tuple[str, str]:
    """Return the paragraph behind a label that begins a line, and the text without
    it.
    """
    before, found, after = f"\n{text}".partition(f"\n{label}")
    if not found:
        return "", text
    paragraph, _, rest = after.partition("\n\n")
    return _line(paragraph), f"{before}\n\n{rest}"


def _line(text: str) -> str:
    return " ".join(text.split())
