"""Which settings of which methods to take for a model, from a table that was built."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from leaderboard.records.errors import UserError, one_line, unknown
from leaderboard.records.schema import DENSE
from leaderboard.tables.cells import Record, real
from leaderboard.tables.ranking.savings import Saving

# the column of what is ranked
GAIN = {Saving.BYTES: "compression_ratio", Saving.MACS: "theoretical_speedup"}
# best first; any other says why a row has no time of its own
VERDICTS = ("faster", "tie", "slower")
UNTIMED = {"as dense": "run dense's own program", "failed": "could not be timed"}


@dataclass(frozen=True)
class Question:
    """What is asked: rows of `model`, of the budget classes `needs` if any are named,
    that lose at most `max_drop` points.
    """

    model: str
    needs: tuple[str, ...]
    max_drop: float
    cost: Saving


@dataclass(frozen=True)
class Candidate:
    """A row that is ranked: the place of its verdict (0 but for latency), its gain
    (dense / compressed) and the gain's interval.
    """

    record: Record
    place: int
    gain: float
    low: float
    high: float

    @property
    def order(self) -> tuple[int, float, float]:
        """Return the sort key: best first, of equals the more accurate."""
        return self.place, -self.gain, -real(self.record["accuracy_percent"])

    def tied(self, first: Candidate, floor: float) -> bool:
        """Say whether the gain cannot be told from that of `first`: equal, within the
        noise floor, or with overlapping intervals.
        """
        return first.gain <= self.gain * (1 + floor) or self.high >= first.low


@dataclass(frozen=True)
class Answer:
    """The candidates, best first, and how many rows are not among them, by the
    reason.
    """

    ranked: tuple[Candidate, ...]
    left_out: str


def recommend(records: Sequence[Record], question: Question) -> Answer:
    """Return the rows that qualify, the best cost first; raise UserError where there
    are none, UnknownName for a name that the table lacks.
    """
    kept = _qualifying(records, question)
    if question.cost is not Saving.LATENCY:
        column = GAIN[question.cost]
        gains = [(record, real(record[column])) for record in kept if record[column]]
        if not gains:
            raise UserError(
                f"no row of {question.model} that loses at most {question.max_drop:g} points has "
                f"a {column}"
            )
        return Answer(
            tuple(
                sorted(
                    (Candidate(record, 0, gain, gain, gain) for record, gain in gains),
                    key=lambda found: found.order,
                )
            ),
            "",
        )
    batch = smallest_batch(records)
    timed = [record for record in kept if record[f"verdict_{batch}"] in VERDICTS]
    left_out = _reasons(record[f"verdict_{batch}"] for record in kept if record not in timed)
    if not timed:
        raise UserError(
            f"no row of {question.model} that loses at most {question.max_drop:g} points has a "
            f"time of its own: {left_out}"
        )
    return Answer(
        tuple(sorted((_timed(record, batch) for record in timed), key=lambda found: found.order)),
        left_out,
    )


def smallest_batch(records: Sequence[Record]) -> str:
    """Return the name of the batch that is ranked, like `b1`."""
    batches = [
        column.removeprefix("verdict_b") for column in records[0] if column.startswith("verdict_b")
    ]
    if not batches:
        raise UserError("the table has no column of latency: run `shrinkmark tables`")
    return f"b{min(batches, key=real)}"


def reproduction(track: str, record: Record) -> str:
    """Return the command that runs a row's method on its model anew."""
    return shlex.join(
        [
            "shrinkmark",
            "run",
            track,
            "--method",
            record["method"],
            "--model",
            record["model"],
            "--into",
            "try",
        ]
    )


def _qualifying(records: Sequence[Record], question: Question) -> list[Record]:
    _check("model", [question.model], {record["model"] for record in records})
    _check("needs", question.needs, {record["needs"] for record in records})
    of_model = [
        record
        for record in records
        if record["model"] == question.model
        and record["method"] != DENSE
        and record["delta_points"]
    ]
    measured = [
        record for record in of_model if not question.needs or record["needs"] in question.needs
    ]
    if not measured:
        classes = sorted({record["needs"] for record in of_model})
        raise UserError(
            f"{question.model} has no measured row that needs {' or '.join(question.needs)}: it "
            f"has {', '.join(classes) or 'none at all'}"
        )
    kept = [record for record in measured if real(record["delta_points"]) >= -question.max_drop]
    if not kept:
        mildest = max(measured, key=lambda record: real(record["delta_points"]))
        loss, name = (
            -real(mildest["delta_points"]),
            one_line(f"{mildest['method']} {mildest['setting']}").strip(),
        )
        raise UserError(
            f"no row of {question.model} loses at most {question.max_drop:g} points: the mildest "
            f"loss is {loss:.2f} points, of {name}"
        )
    return kept


def _check(kind: str, asked: Sequence[str], known: set[str]) -> None:
    for name in asked:
        if name not in known:
            raise unknown(kind, name, known)


def _timed(record: Record, batch: str) -> Candidate:
    gain, low, high = (real(record[f"speedup_{batch}{end}"]) for end in ("", "_low", "_high"))
    return Candidate(record, VERDICTS.index(record[f"verdict_{batch}"]), gain, low, high)


def _reasons(verdicts: Iterable[str]) -> str:
    return ", ".join(
        f"{count} {UNTIMED.get(verdict, verdict)}"
        for verdict, count in sorted(Counter(verdicts).items())
    )
