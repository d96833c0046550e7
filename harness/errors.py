"""Errors that end a command with one line."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Bad input: the message says in one line what was wrong, what was found and what to do."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a misspelt `name`, with the nearest of `known`."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(names) or 'none'}"
    return UserError(f"unknown {kind} '{name}': {hint}")
