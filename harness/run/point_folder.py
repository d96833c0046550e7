"""A point's folder: its artefact, its predictions and its record, written aside and
moved to its place in one step.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from harness.point import predictions, store
from harness.run.paths import Paths
from harness.run.points import Point
from harness.run.server.pool import Outcome
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.schema import AnyPoint, Measured, Spent, Unmeasured

RECORD = "record.json"
READER: TypeAdapter[Measured | Unmeasured] = TypeAdapter(AnyPoint)


@dataclass(frozen=True)
class Made:
    """What running a point gave: its record, and what it took if it is ok."""

    record: Measured | Unmeasured
    spent: Spent | None


def temporary(paths: Paths, point: Point) -> Path:
    """Make and return the empty folder in which the point's artefact is written; see
    `place`.
    """
    folder = paths.artefacts(point.track, point.method) / f".{point.id}.tmp"
    folder.mkdir(parents=True)
    return folder


def made_of(point: Point, outcomes: Sequence[Outcome], wanted: str) -> Made:
    """Put together what the steps of a point gave; `wanted` is its fingerprint."""
    about = {
        "id": point.id,
        "model": point.model,
        "setting": point.setting,
        "seed": point.seed,
        "fingerprint": wanted,
    }
    reason = outcomes[-1].reason
    if reason is not None:
        return Made(
            Unmeasured.model_validate({**about, "status": "failed", "reason": reason}), None
        )
    found = {key: value for outcome in outcomes for key, value in (outcome.value or {}).items()}
    record = READER.validate_python(
        {**about, **{key: value for key, value in found.items() if key != "spent"}}
    )
    if not isinstance(record, Measured):
        return Made(record, None)
    spent = {
        key: value
        for outcome in outcomes
        for key, value in (outcome.value or {}).get("spent", {}).items()
    }
    return Made(record, Spent.model_validate({**spent, "fingerprint": wanted}))


def place(paths: Paths, point: Point, folder: Path, record: Measured | Unmeasured) -> None:
    """Write the record into the point's temporary folder, and move that to its place in
    one step.
    """
    files.write_record(folder / RECORD, record)
    final = paths.artefacts(point.track, point.method) / point.id
    if final.exists():
        shutil.rmtree(final)
    folder.replace(final)


def read(folder: Path) -> Measured | Unmeasured:
    """Return the record in `folder`; raise UserError if it is missing or damaged."""
    with files.reading(folder / RECORD):
        return READER.validate_json((folder / RECORD).read_bytes())


def standing(folder: Path, wanted: str) -> Measured | Unmeasured | None:
    """Return the record in `folder` if its fingerprint stands, it did not fail, and its
    files are whole.
    """
    try:
        record = read(folder)
        if record.fingerprint != wanted or record.status == "failed":
            return None
        if not isinstance(record, Measured):
            return record
        whole = (folder / store.WEIGHTS).stat().st_size == record.bytes and (
            folder / store.PROGRAM
        ).exists()
        return record if whole and len(predictions.read(folder)["class"]) == record.images else None
    except (UserError, OSError):
        return None


def clear(home: Path, wanted: set[str]) -> None:
    """Remove half-written artefacts of a method and those of points that params.yaml no
    longer names.
    """
    for folder in home.iterdir():
        if folder.name not in wanted:
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
