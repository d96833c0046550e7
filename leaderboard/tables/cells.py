"""Cells of a table's CSV as text in a terminal."""

from __future__ import annotations

from leaderboard.records.errors import UserError, one_line

Record = dict[str, str]
# columns that hold no number, whatever they look like; verdict_b1 and its like are others
TEXT = frozenset(
    """
    version track hardware fingerprint model method family setting needs realisation
    significance latency_reason best pareto origin status reason
    """.split()
)


def speedup_cell(record: Record, batch: str) -> str:
    """Return the realised speed-up at a batch like `b1`, or what the clock says in its
    place.
    """
    word = record[f"verdict_{batch}"]
    return (
        fixed(record.get(f"speedup_{batch}", ""), 2)
        if word in ("faster", "slower")
        else word.replace("not measured", "")
    )


def typed(record: Record) -> dict[str, str | float | None]:
    """Return a record with numbers in the columns of numbers; None for nothing."""
    return {
        column: text if column in TEXT or column.startswith("verdict_") else _number(text)
        for column, text in record.items()
    }


def _number(text: str) -> float | int | None:
    if not text:
        return None
    return int(text) if text.isdecimal() else real(text)


def fixed(text: str, digits: int, scale: float = 1.0) -> str:
    """Return a number at a fixed precision, nothing for nothing."""
    return f"{real(text) * scale:.{digits}f}" if text else ""


def real(text: str) -> float:
    """Return the number in a cell; raise UserError where there is none."""
    try:
        return float(text)
    except ValueError:
        raise _no_number(text) from None


def whole(text: str) -> int:
    """Return the whole number in a cell; raise UserError where there is none."""
    if not text.isdecimal():
        raise _no_number(text)
    return int(text)


def _no_number(text: str) -> UserError:
    return UserError(
        f"the table holds '{one_line(text)}' where a number belongs: run `shrinkmark tables`"
    )


def cut(text: str, width: int) -> str:
    """Return `text` on one line of at most `width` characters."""
    line = one_line(text)
    return line if len(line) <= width else line[: width - 1] + "…"
