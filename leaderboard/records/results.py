"""Results read into frozen values, and refused where they do not fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from leaderboard.records.errors import UserError, describe, one_line, unknown
from leaderboard.records.schema import (
    DENSE,
    CostsFile,
    Measured,
    MethodInfo,
    MethodPoints,
    Origin,
    Spent,
    Stamp,
    TrackInfo,
    Unmeasured,
)

TABLES = "tables"  # results/<version>/<track>/tables/ is made of all that lies beside it
VERSION2 = "records"  # results/<version>/records/ is what version 2 wrote, see version2.py
PARTS = ("confidence", "rank")  # of a point's predictions, beside its classes
Correct = NDArray[np.bool_]
Predictions = NDArray[np.integer]
Document = TypeVar("Document", bound=BaseModel)


@dataclass(frozen=True)
class MethodResults:
    """A method's points and, by the id of its measured points, its predictions and
    which test images it got right.
    """

    method: MethodInfo
    points: tuple[Measured | Unmeasured, ...]
    predictions: Mapping[str, Predictions]
    correct: Mapping[str, Correct]
    origin: Origin | None
    # predictions with all their parts, as the file has them
    stored: Mapping[str, NDArray[np.generic]]
    spent: Mapping[str, Spent]  # what the points took, where that is known

    @property
    def measured(self) -> tuple[Measured, ...]:
        """Return the points that have numbers."""
        return tuple(point for point in self.points if isinstance(point, Measured))


@dataclass(frozen=True)
class TrackResults:
    """All results of one track, methods by name."""

    folder: Path
    info: TrackInfo
    methods: tuple[MethodResults, ...]

    @property
    def labels(self) -> NDArray[np.int_]:
        """Return the labels of the test images, (images,)."""
        return np.asarray(self.info.test_labels)

    @property
    def by_name(self) -> dict[str, MethodResults]:
        """Return the methods by name."""
        return {method.method.name: method for method in self.methods}

    @property
    def decided(self) -> dict[tuple[str, str], str]:
        """Return the fingerprint of every point by method and id."""
        return {
            (method.method.name, point.id): point.fingerprint
            for method in self.methods
            for point in method.points
        }


def read_record(path: Path, kind: type[Document]) -> Document:
    """Return `path` as a `kind`; raise UserError if it is missing, truncated or of
    another form.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; run `dvc repro`") from None
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise UserError(
                f"{path} is not valid JSON ({one_line(error.errors()[0]['msg'])}): restore it "
                "with git or run `dvc repro`"
            ) from None
        raise UserError(
            f"{path} is not a file of results: {describe(error)}; run `dvc repro`"
        ) from None


def read_predictions(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a method's predictions by name (see `stored_name`); raise
    UserError if the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(
            f"predictions {path} cannot be read ({one_line(str(error))[:80]}): run `dvc repro`"
        ) from None


def track_folder(results: Path, version: str, track: str) -> Path:
    """Return the folder of a track's results."""
    return results / version / track


def stored_name(point: str, part: str) -> str:
    """Return what a part of a point's predictions is called in the file of its method:
    the class by the point's id alone.
    """
    return point if part == "class" else f"{point}|{part}"


def of_version2(folder: Path) -> bool:
    """Say whether a folder of one version's results has the form of version 2, and not
    a track of that name.
    """
    return (folder / VERSION2).is_dir() and not (folder / VERSION2 / "track.json").exists()


def version_folder(results: Path, version: str) -> Path:
    """Return the folder of a version's results; raise UserError where there is none, or
    none of today's form.
    """
    if not results.is_dir():
        raise UserError(
            f"results folder {results} not found: run `dvc repro`, without DVC "
            "`shrinkmark run TRACK`, or name the folder with --results"
        )
    folder = results / version
    if of_version2(folder):
        raise UserError(
            f"{folder} is as version 2 wrote it, which `compare` alone reads: its tables lie "
            "there; for today's run `dvc repro`"
        )
    if not folder.is_dir():
        known = [
            other.name for other in results.iterdir() if other.is_dir() and not of_version2(other)
        ]
        if not known:
            raise UserError(
                f"{results} holds no results of version '{one_line(version)}' yet: run `dvc repro`"
            )
        raise unknown("version", version, known)
    return folder


def find_tracks(results: Path, version: str) -> list[str]:
    """Return the names of the tracks that have results of `version`, sorted."""
    return sorted(
        path.parent.name for path in version_folder(results, version).glob("*/track.json")
    )


def read_track(results: Path, version: str, track: str) -> TrackResults:
    """Read one track's results; raise UserError where files are missing, broken, of
    another version or contradict each other.
    """
    return read_records(track_folder(results, version, track), version, track)


def read_records(folder: Path, version: str, track: str) -> TrackResults:
    """Read the results of one track in the folder that holds its track.json; raises as
    `read_track` does.
    """
    info = _read_stamped(folder / "track.json", TrackInfo, version, track)
    if len(info.test_labels) != info.images.test:
        raise UserError(
            f"{folder / 'track.json'}: {info.images.test} test images but {len(info.test_labels)} "
            "test labels; run `dvc repro`"
        )
    labels = np.asarray(info.test_labels)
    costs = _costs(folder, info)
    methods = tuple(
        _read_method(path, info, labels, costs)
        for path in sorted((folder / "points").glob("*.json"))
    )
    dense = [
        point
        for method in methods
        if method.method.name == DENSE
        for point in method.points
        if point.status == "ok"
    ]
    if not dense:
        raise UserError(
            f"{folder} has no measured point of 'dense', which every ratio refers to: put `dense` "
            "into params.yaml and run `dvc repro`"
        )
    return TrackResults(folder, info, methods)


def _read_stamped(path: Path, kind: type[Document], version: str, track: str) -> Document:
    """Read `path` after its stamp, so that results of another version are named as such
    whatever their form.
    """
    stamp = read_record(path, Stamp)
    if (stamp.version, stamp.track) != (version, track):
        found = one_line(f"version '{stamp.version}' of track '{stamp.track}'")
        raise UserError(
            f"{path} is {found}, not version '{version}' of '{track}': versions are never mixed; "
            "remove it and run `dvc repro`"
        )
    return read_record(path, kind)


def _costs(folder: Path, info: TrackInfo) -> list[CostsFile]:
    """Return the files of costs, first that of the machine that made most points."""
    machines = [
        _read_stamped(path, CostsFile, info.version, info.track)
        for path in sorted((folder / "costs").glob("*.json"))
    ]
    return sorted(machines, key=lambda costs: -sum(map(len, costs.points.values())))


def _spent(costs: Sequence[CostsFile], method: str, points: Sequence[Measured]) -> dict[str, Spent]:
    """Return what each point took on the first machine that made it as it stands; one
    that none did is left out.
    """
    known = {
        (name, one.fingerprint): one
        for machine in reversed(costs)
        for name, one in machine.points.get(method, {}).items()
    }
    return {
        point.id: known[point.id, point.fingerprint]
        for point in points
        if (point.id, point.fingerprint) in known
    }


def _read_method(
    path: Path, info: TrackInfo, labels: NDArray[np.int_], costs: Sequence[CostsFile]
) -> MethodResults:
    content = _read_stamped(path, MethodPoints, info.version, info.track)
    if content.content_hash != info.content_hash:
        found = (
            f"{path} rests on data '{one_line(content.content_hash)[:16]}…', track.json on "
            f"'{one_line(info.content_hash)[:16]}…'"
        )
        raise UserError(f"{found}: contents are never mixed; run `make repro TRACK={info.track}`")
    if content.method.name != path.stem:
        raise UserError(
            f"{path} holds the method '{one_line(content.method.name)}', not '{path.stem}': "
            "rename or remove it"
        )
    ids = [point.id for point in content.points]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path} holds the point '{one_line(twice)}' twice: run `dvc repro`")
    measured = [point for point in content.points if isinstance(point, Measured)]
    stored = _predictions(
        path.parent.parent / "predictions" / f"{path.stem}.safetensors", measured, labels
    )
    predictions = {point.id: stored[point.id] for point in measured}
    correct = {name: predicted == labels for name, predicted in predictions.items()}
    spent = _spent(costs, path.stem, measured)
    return MethodResults(
        content.method, content.points, predictions, correct, content.origin, stored, spent
    )


def _predictions(
    path: Path, points: list[Measured], labels: NDArray[np.int_]
) -> dict[str, NDArray[Any]]:
    """Return the predictions of the points with all their parts, checked against the
    count that each carries.
    """
    if not points:
        return {}
    predictions = read_predictions(path)
    found: dict[str, NDArray[Any]] = {}
    for point in points:
        found[point.id] = _checked(path, point, predictions.get(point.id), labels)
        for part in PARTS:
            values = predictions.get(stored_name(point.id, part))
            if values is None:
                raise UserError(
                    f"{path} lacks the {part} of the predictions of point '{one_line(point.id)}': "
                    "run `dvc repro`"
                )
            if values.shape != labels.shape:
                what = (
                    f"{path}: the {part} of the predictions of point '{one_line(point.id)}' is "
                    f"{values.shape} for {len(labels)} test images"
                )
                raise UserError(f"{what}: run `dvc repro`")
            found[stored_name(point.id, part)] = values
        if not np.array_equal(found[stored_name(point.id, "rank")] == 0, found[point.id] == labels):
            raise UserError(
                f"{path}: the ranks of point '{one_line(point.id)}' are not those of its classes: "
                "run `dvc repro`"
            )
        sure = found[stored_name(point.id, "confidence")]
        if not ((sure >= 0) & (sure <= 1)).all():
            raise UserError(
                f"{path}: the confidence of point '{one_line(point.id)}' is not between 0 and 1 "
                "everywhere: run `dvc repro`"
            )
    return found


def _checked(
    path: Path, point: Measured, predicted: Predictions | None, labels: NDArray[np.int_]
) -> Predictions:
    if predicted is None:
        raise UserError(
            f"{path} lacks the predictions of point '{one_line(point.id)}', which is ok: run `dvc "
            "repro`"
        )
    if predicted.shape != labels.shape or point.images != len(labels):
        raise UserError(
            f"{path}: point '{one_line(point.id)}' has predictions {predicted.shape} for "
            f"{len(labels)} test images: run `dvc repro`"
        )
    hits = int((predicted == labels).sum())
    if hits != point.correct:
        raise UserError(
            f"{path}: point '{one_line(point.id)}' says {point.correct} correct, its predictions "
            f"{hits}: run `dvc repro`"
        )
    return predicted
