"""The best rows of tracks for each goal, as README and docs/results.md show them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from leaderboard.recommend.recommend import Candidate, Question, recommend, smallest_batch
from leaderboard.records.errors import UserError, one_line
from leaderboard.records.files import put_between, read_text, write_text
from leaderboard.records.results import read_record
from leaderboard.records.schema import DENSE, TrackInfo
from leaderboard.records.statistics import Estimate
from leaderboard.tables.caption import budgets, resolution
from leaderboard.tables.cells import Record, fixed, real, speedup_cell, whole
from leaderboard.tables.github import escape, github_table
from leaderboard.tables.precision import accuracy_digits
from leaderboard.tables.ranking.savings import Saving
from leaderboard.tables.terminal import Choice, read_table

MARKER = "best"  # of its place in a page
ROWS, LOSS = 5, 1.0  # a goal: the rows shown, and the points that they lose at most
GOALS = {Saving.BYTES: "smallest", Saving.MACS: "fewest MACs", Saving.LATENCY: "fastest"}


def update_best(page: Path, choices: Sequence[Choice]) -> None:
    """Write the best rows of tables one after another between the markers of the page,
    if it has them.
    """
    text = read_text(page)
    if f"<!-- {MARKER}:begin -->" in text:
        sections = "\n\n".join(best_text(choice, page) for choice in choices)
        write_text(page, put_between(text, MARKER, sections, page))


def first_tables(tables: Sequence[Choice]) -> list[Choice]:
    """Return of each track the first table, the tracks in the order of `tables`."""
    found: dict[str, Choice] = {}
    for choice in tables:
        found.setdefault(choice.track, choice)
    return list(found.values())


def best_text(choice: Choice, page: Path) -> str:
    """Return a track's plot, what its numbers rest on, and the `ROWS` best rows for
    each goal that lose at most `LOSS` points, over all models, of each method the best.

    page: the page that the plot is linked from.
    """
    info = read_record(choice.path.parents[1] / "track.json", TrackInfo)
    records = read_table(choice.path)
    table = github_table(_lines(records), ("goal", "method", "setting", "model"))
    return "\n\n".join([*_plot(choice, info, page), _about(choice, info, records), table])


def _plot(choice: Choice, info: TrackInfo, page: Path) -> list[str]:
    """Return the image of the accuracy of all methods, if there is one."""
    path = choice.path.with_name("accuracy.svg")
    if not path.exists():
        return []
    link = Path(os.path.relpath(path, page.parent)).as_posix()
    return [
        "![Accuracy against compression ratio of every method on the models of "
        f"{escape(info.track)}, with the Pareto front of each]({link})"
    ]


def _about(choice: Choice, info: TrackInfo, records: Sequence[Record]) -> str:
    dense = [
        Estimate(*(real(record[f"accuracy_percent{end}"]) / 100 for end in ("", "_low", "_high")))
        for record in records
        if record["method"] == DENSE and record["accuracy_percent"]
    ]
    models = ", ".join(f"{name} ({model.timm})" for name, model in info.models.items())
    return (
        f"{escape(info.track)}: {escape(info.title)}; models {escape(models)}. "
        f"{resolution(info, dense)} Budgets in epochs: {budgets(info)}. "
        f"Below, of each method its best row that loses at most {LOSS:g} point of accuracy; "
        f"ratios are dense / compressed, speed-up on {escape(choice.hardware)}, one image."
    )


def _lines(records: Sequence[Record]) -> list[Record]:
    """Return the rows for each goal; one that no row meets says so."""
    batch = smallest_batch(records)
    return [
        {"goal": goal if place == 0 else ""} | line
        for saving, goal in GOALS.items()
        for place, line in enumerate(
            [_line(found.record, batch) for found in best(records, saving)]
            or [dict.fromkeys(_line(records[0], batch), "") | {"method": "none"}]
        )
    ]


def best(records: Sequence[Record], saving: Saving) -> list[Candidate]:
    """Return the `ROWS` best rows that gain anything for a goal, of each method the
    best.
    """
    ranked = [
        found
        for model in dict.fromkeys(record["model"] for record in records)
        for found in _of_model(records, Question(model, (), LOSS, saving))
        if found.place == 0 and found.gain > 1
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
