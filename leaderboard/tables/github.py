"""Markdown as GitHub renders it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from leaderboard.records.errors import one_line

ENTITIES = str.maketrans(
    {character: f"&#{ord(character)};" for character in "|\\`[*"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
)


def escape(text: str) -> str:
    """Return text from results as inert Markdown on one line."""
    return one_line(text).translate(ENTITIES)


def github_table(records: Sequence[Mapping[str, str]], text_columns: Sequence[str]) -> str:
    """Return records as a GitHub table, numbers to the right."""
    align = ["left" if name in text_columns else "right" for name in records[0]]
    return tabulate(
        records, headers="keys", tablefmt="github", disable_numparse=True, colalign=align
    )
