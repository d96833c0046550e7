"""Errors that end a command with one line."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # whoever hashes sources by another Python has the standard library alone
    from pydantic import ValidationError


class UserError(Exception):
    """Bad input: the message says in one line what was wrong, what was found and what
    to do.
    """


class Interrupted(UserError):
    """Somebody pressed Ctrl-C: the message says what is kept and how to go on."""


class UnknownName(UserError):
    """A name that there is not."""


class BrokenContract(Exception):
    """A method returned something that cannot be a compressed model: the message says
    why in one line.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """Return the error for a misspelt `name`, with the nearest of `known`."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(names) or 'none'}"
    return UnknownName(f"unknown {kind} '{one_line(name)}': {hint}")


def describe(error: ValidationError) -> str:
    """Return the first finding of pydantic, and how many more there are, on one
    line.
    """
    first = error.errors()[0]  # whose message may hold what was found, however long
    where = ".".join(str(part)[:80] for part in first["loc"]) or "the top level"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return one_line(
        f"{where}: {first['msg'][:300]}, found {reprlib.repr(first['input'])[:60]}{more}"
    )


def one_line(text: str) -> str:
    """Return `text` with every run of white space and control characters made one
    space.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
