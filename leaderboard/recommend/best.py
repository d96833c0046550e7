"""The best rows of a track for each goal, as README shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leaderboard.recommend.recommend import Candidate, Question, recommend, smallest_batch
from leaderboard.records.errors import UserError, one_line
from leaderboard.records.files import put_between, read_text, write_text
from leaderboard.tables.cells import Record, fixed, speedup_cell, whole
from leaderboard.tables.github import escape, github_table
from leaderboard.tables.precision import accuracy_digits
from leaderboard.tables.ranking.savings import Saving
from leaderboard.tables.terminal import Choice, read_table

MARKER = "best"  # of its place in a page
ROWS, LOSS = 5, 1.0  # a goal: the rows shown, and the points that they lose at most
GOALS = {Saving.BYTES: "smallest", Saving.MACS: "fewest MACs", Saving.LATENCY: "fastest"}


def update_best(page: Path, choice: Choice) -> None:
    """Write the best rows of a table between the markers of the page, if it has them."""
    text = read_text(page)
    if f"<!-- {MARKER}:begin -->" in text:
        write_text(page, put_between(text, MARKER, best_text(choice), page))


def best_text(choice: Choice) -> str:
    """Return the `ROWS` best rows for each goal that lose at most `LOSS` points, over all
    models, of each method the best.
    """
    records = read_table(choice.path)
    batch = smallest_batch(records)
    lines = [
        {"goal": goal if place == 0 else ""} | _line(found.record, batch)
        for saving, goal in GOALS.items()
        for place, found in enumerate(best(records, saving))
    ]
    table = github_table(lines, ("goal", "method", "setting", "model"))
    return (
        f"On {escape(choice.track)}, losing at most {LOSS:g} point of accuracy, of each method its "
        f"best row; ratios are dense / compressed, speed-up on {escape(choice.hardware)}, one "
        f"image.\n\n{table}"
    )


def best(records: Sequence[Record], saving: Saving) -> list[Candidate]:
    """Return the `ROWS` best rows for a goal, of each method the best."""
    ranked = [
        found
        for model in dict.fromkeys(record["model"] for record in records)
        for found in _of_model(records, Question(model, (), LOSS, saving))
    ]
    by_method: dict[str, Candidate] = {}
    for found in sorted(ranked, key=lambda found: found.order):
        by_method.setdefault(found.record["method"], found)
    return list(by_method.values())[:ROWS]


def _of_model(records: Sequence[Record], question: Question) -> Sequence[Candidate]:
    try:
        return recommend(records, question).ranked
    except UserError:  # none qualifies
        return ()


def _line(record: Record, batch: str) -> Record:
    digits = accuracy_digits(whole(record["test_images"]))
    line = {
        "method": record["method"],
        "setting": one_line(record["setting"]),
        "model": record["model"],
        "acc %": fixed(record["accuracy_percent"], digits),
        "Δ": fixed(record["delta_points"], digits),
        "size ×": fixed(record["compression_ratio"], 2),
        "MACs ×": fixed(record["theoretical_speedup"], 2),
        "speed-up ×": speedup_cell(record, batch),
    }
    return {escape(name): escape(text) for name, text in line.items()}
