"""Results as version 2 wrote them, read into today's form: for comparing with, and for
nothing else.

They lie in results/v2/records/<track>/; what a point took stands in its record, and of
its predictions there are the classes alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from leaderboard.records.errors import UserError, describe, one_line
from leaderboard.records.results import VERSION2, MethodResults, TrackResults
from leaderboard.records.schema import Measured, MethodPoints, Spent, TrackInfo


def find_tracks(version_folder: Path) -> list[str]:
    """Return the names of the tracks that have results there, sorted."""
    return sorted(path.parent.name for path in (version_folder / VERSION2).glob("*/track.json"))


def read_track(version_folder: Path, track: str) -> TrackResults:
    """Read a track's results; raise UserError where files are missing or broken."""
    folder = version_folder / VERSION2 / track
    with _reading(folder / "track.json"):
        info = TrackInfo.model_validate_json((folder / "track.json").read_bytes())
    methods = []
    for path in sorted((folder / "points").glob("*.json")):
        with _reading(path):
            methods.append(_method(path, np.asarray(info.test_labels)))
    return TrackResults(folder, info, tuple(methods))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise UserError for what damage to `path`, or to the predictions that it names,
    raises.
    """
    try:
        yield
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        reason = (
            describe(error)
            if isinstance(error, ValidationError)
            else one_line(f"{type(error).__name__} {error}")[:160]
        )
        raise UserError(
            f"{path} cannot be read as results of version 2 ({reason}): restore it with git"
        ) from None


def _method(path: Path, labels: np.ndarray[Any, Any]) -> MethodResults:
    content = json.loads(path.read_bytes())
    spent = {point["id"]: _spent(point) for point in content["points"] if point["status"] == "ok"}
    for point in content["points"]:
        if "cost" in point:
            point["work"] = {name: point["cost"][name] for name in ("images", "steps")}
    found = MethodPoints.model_validate(content)
    measured = [point.id for point in found.points if isinstance(point, Measured)]
    classes = (
        load_file(path.parent.parent / "predictions" / path.with_suffix(".safetensors").name)
        if measured
        else {}
    )
    predictions = {name: classes[name] for name in measured}
    correct = {name: predicted == labels for name, predicted in predictions.items()}
    return MethodResults(
        found.method, found.points, predictions, correct, found.origin, predictions, spent
    )


def _spent(point: dict[str, Any]) -> Spent:
    took = {name: point["timings"][name] for name in ("export", "evaluate")} | {
        name: point["cost"][name] for name in ("seconds", "peak_mib")
    }
    return Spent.model_validate({**took, "fingerprint": point["fingerprint"]})
