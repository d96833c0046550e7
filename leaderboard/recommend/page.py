"""A recommendation in a terminal."""

from __future__ import annotations

import json
from typing import Any

from tabulate import tabulate

from leaderboard.recommend.recommend import (
    Answer,
    Candidate,
    Question,
    recommend,
    reproduction,
    smallest_batch,
)
from leaderboard.records.errors import UserError, one_line
from leaderboard.records.files import read_text
from leaderboard.tables.cells import Record, cut, fixed, real, speedup_cell, typed, whole
from leaderboard.tables.precision import accuracy_digits
from leaderboard.tables.ranking.savings import Saving
from leaderboard.tables.terminal import Choice, read_table

FIRST = {
    Saving.BYTES: "the smallest",
    Saving.MACS: "the fewest MACs",
    Saving.LATENCY: "the fastest",
}
GAIN = {Saving.BYTES: "is smaller", Saving.MACS: "has fewer MACs", Saving.LATENCY: "is faster"}
TEXT_COLUMNS = ("method", "setting", "needs", "realisation", "loss", "beside the first")


def recommend_text(choice: Choice, question: Question, top: int) -> str:
    """Return what `rows_text` does, and the command that reproduces the first row."""
    first = recommend(read_table(choice.path), question).ranked[0]
    again = reproduction(choice.track, first.record)
    return f"{rows_text(choice, question, top)}\nreproduce the first: {again}"


def rows_text(choice: Choice, question: Question, top: int) -> str:
    """Return the `top` best rows of a table for a question, and what is not shown and
    why.
    """
    records = read_table(choice.path)
    answer = recommend(records, question)
    batch = smallest_batch(records)
    floor = _floor(choice, question, batch)
    first, shown = answer.ranked[0], answer.ranked[:top]
    lines = [
        _line(found, batch)
        | {"beside the first": "" if found is first else "tied" * found.tied(first, floor)}
        for found in shown
    ]
    align = ["left" if name in TEXT_COLUMNS else "right" for name in lines[0]]
    table = tabulate(lines, headers="keys", disable_numparse=True, colalign=align)
    return "\n".join(
        [
            table,
            "",
            *_notes(answer, question, len(shown)),
        ]
    )


def answered(choice: Choice, question: Question, top: int) -> dict[str, Any]:
    """Return what `recommend_text` says as values: the rows with all their columns, and
    whether each is tied with the first.
    """
    records = read_table(choice.path)
    answer = recommend(records, question)
    floor, first = _floor(choice, question, smallest_batch(records)), answer.ranked[0]
    rows = [
        typed(found.record) | {"tied": found.tied(first, floor)} for found in answer.ranked[:top]
    ]
    return {
        "rows": rows,
        "qualifying": len(answer.ranked),
        "without_a_time": answer.left_out,
        "reproduce": reproduction(choice.track, first.record),
    }


def _floor(choice: Choice, question: Question, batch: str) -> float:
    return _noise_floor(choice, batch) if question.cost is Saving.LATENCY else 0.0


def _notes(answer: Answer, question: Question, shown: int) -> list[str]:
    first = answer.ranked[0]
    limit = f"losing at most {question.max_drop:g} percentage points"
    notes = [
        f"shown: {shown} of {len(answer.ranked)} rows of {question.model} {limit}, "
        f"{FIRST[question.cost]} first"
    ]
    if answer.left_out:
        notes.append(f"not listed, without a time of their own: {answer.left_out}")
    if first.place or first.gain <= 1:
        notes.append(f"note: none of them {GAIN[question.cost]} than dense")
    return notes


def _line(found: Candidate, batch: str) -> Record:
    record = found.record
    digits = accuracy_digits(whole(record["test_images"]))
    line = {
        "method": cut(record["method"], 28),
        "setting": one_line(record["setting"]),
        "needs": record["needs"],
        "realisation": record["realisation"],
    }
    line |= {
        "acc %": fixed(record["accuracy_percent"], digits),
        "Δ": fixed(record["delta_points"], digits),
    }
    line |= {"Δ from": fixed(record["delta_points_low"], digits), "loss": _loss(record)}
    line |= {
        "size ×": fixed(record["compression_ratio"], 2),
        "MACs ×": fixed(record["theoretical_speedup"], 2),
    }
    return line | {f"{batch} ×": speedup_cell(record, batch)}


def _loss(record: Record) -> str:
    """Return what can be said of the loss: the lower end of its interval may lie far
    below it.
    """
    if real(record["delta_points"]) >= 0:
        return "none"
    return f"significant {record['significance']}" if record["significance"] else "not significant"


def _noise_floor(choice: Choice, batch: str) -> float:
    """Return the noise floor of the run that a table shows, from the metrics beside
    it.
    """
    path, name = choice.path.with_name("metrics.json"), f"noise_floor_{choice.hardware}/{batch}"
    try:
        return float(json.loads(read_text(path))[name])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} does not hold '{name}': run `shrinkmark tables`") from None
