"""Whether the committed results belong to the committed code and params; needs no
artefacts.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import yaml
from pydantic import ValidationError

from harness.run import fingerprint
from harness.run.paths import Paths
from harness.run.points import expand
from harness.run.selection import at_hand
from leaderboard.records.errors import UserError, one_line
from leaderboard.records.params import Params
from leaderboard.records.results import read_predictions, read_record
from leaderboard.records.schema import Measured, MethodPoints, Origin, TrackInfo


def again(track: str) -> str:
    """Return the remedy for results that are behind."""
    return f"run make repro TRACK={track}"


def check_results(params: Params, paths: Paths) -> list[str]:
    """Return one line for everything in results/<version> and dvc.lock that the code
    and params at hand did not make; tracks never run are passed over.
    """
    found = [path.name for path in sorted(paths.records("x").parent.glob("*"))]
    findings = [
        f"{name}: no track of params.yaml: delete {paths.records(name)}"
        for name in found
        if name not in params.tracks
    ]
    for track in (name for name in params.tracks if name in found):
        try:
            record = read_record(paths.records(track) / "track.json", TrackInfo)
        except UserError as error:
            findings.append(str(error))
            continue
        findings += _check_dense(params, track, record)
        for method in params.plans:
            findings += _check_method(params, paths, track, method, record)
        findings += [
            line
            for path in _unplanned(params, paths, track)
            for line in _check_unplanned(track, path, record)
        ]
        missing = [
            name for name in params.hardware if not any(paths.latency(track, name).glob("*.json"))
        ]
        findings += [
            f"{track}: no latency of hardware '{name}': {again(track)}" for name in missing
        ]
    return findings + _check_lock(paths.root / "dvc.lock", params)


def _check_lock(lock: Path, params: Params) -> list[str]:
    """Return what is wrong with the stages that a dvc.lock names, if there is one:
    those of version 2 were many more.
    """
    try:
        stages = list(yaml.safe_load(lock.read_text())["stages"]) if lock.exists() else []
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        return [
            f"{lock.name} cannot be read as DVC's ({one_line(str(error))[:160]}): delete it and "
            "run dvc repro"
        ]
    track, hardware = "|".join(params.tracks), "|".join(params.profiles)
    ours = re.compile(
        rf"(train|compress|leaderboard)@({track})|measure@({track})-({hardware})|site"
    )
    strange = [name for name in stages if not ours.fullmatch(name)]
    if not strange:
        return []
    return [
        f"{lock.name} names {len(strange)} stages that there are not, e.g. {strange[0]}, as "
        "version 2 did: delete it and run dvc repro"
    ]


def from_elsewhere(params: Params, paths: Paths) -> list[str]:
    """Return one line for every method in the results that params.yaml does not name
    and that says which bundle it came from.
    """
    tracks = [track for track in params.tracks if (paths.records(track) / "track.json").exists()]
    found = [
        (track, path, _origin(path))
        for track in tracks
        for path in _unplanned(params, paths, track)
    ]
    return [
        f"{track}: {path.name} was not made here: it is from the bundle {origin.bundle[:12]}"
        for track, path, origin in found
        if origin
    ]


def _unplanned(params: Params, paths: Paths, track: str) -> list[Path]:
    """Return what lies beside the points of the methods of params.yaml."""
    known = {f"{method}.json" for method in params.plans}
    return [
        path
        for path in sorted((paths.records(track) / "points").glob("*"))
        if path.name not in known
    ]


def _origin(path: Path) -> Origin | None:
    """Return where the points in `path` came from, if they say so; what cannot be read
    says nothing.
    """
    try:
        return MethodPoints.model_validate_json(path.read_bytes()).origin
    except (OSError, ValidationError):
        return None


def _check_unplanned(track: str, path: Path, record: TrackInfo) -> list[str]:
    """Return what is wrong with points of a method that params.yaml does not name: that
    we made them, or that our dense is not what it was.
    """
    origin = _origin(path)
    if origin is None:
        return [f"{track}: {path.name} belongs to no method of params.yaml: delete it"]
    stale = [
        model
        for model, sha256 in origin.dense.items()
        if (found := record.models.get(model)) is None or found.weights_sha256 != sha256
    ]
    return [
        f"{track}: {path.name} from bundle {origin.bundle[:12]} was added when dense '{model}' "
        "was another: delete it"
        for model in stale
    ]


def _check_dense(params: Params, track: str, record: TrackInfo) -> list[str]:
    if record.version != params.version:
        return [
            f"{track}: track.json is of version {record.version}, params.yaml says "
            f"{params.version}: {again(track)}"
        ]
    stale = [
        model
        for model in at_hand(params, track, record).track(track).models
        if not _dense_stands(params, track, model, record)
    ]
    return [
        f"{track}: dense model '{model}' was not made by this code and params: {again(track)}"
        for model in stale
    ]


def _dense_stands(params: Params, track: str, model: str, record: TrackInfo) -> bool:
    if model not in record.models:
        return False
    found = record.models[model]
    wanted = fingerprint.dense_fingerprint(
        params, track, model, record.content_hash, found.source_sha256
    )
    return found.fingerprint == wanted


def _check_method(
    params: Params, paths: Paths, track: str, method: str, info: TrackInfo
) -> list[str]:
    where = f"{track} {method}"
    try:
        content = read_record(paths.points(track, method), MethodPoints)
        wanted = {
            point.id: fingerprint.point_fingerprint(params, point, info)
            for point in expand(params, track, method)
            if point.model in info.models
        }
        predictions = read_predictions(paths.predictions(track, method))
    except UserError as error:
        return [f"{where}: {error}"]
    if content.content_hash != info.content_hash:
        return [f"{where}: results are of other data than track.json: {again(track)}"]
    if content.version != params.version:
        return [
            f"{where}: results are of version {content.version}, params.yaml says "
            f"{params.version}: {again(track)}"
        ]
    records = {point.id: point for point in content.points}
    if set(records) != set(wanted):
        odd = sorted(set(records) ^ set(wanted))
        return [
            f"{where}: points differ from params.yaml ({len(odd)}, e.g. {odd[0]}): {again(track)}"
        ]
    stale = [name for name, record in records.items() if record.fingerprint != wanted[name]]
    findings = (
        [
            f"{where}: {len(stale)} points were not made by this code and params (e.g. "
            f"{stale[0]}): {again(track)}"
        ]
        if stale
        else []
    )
    labels = np.array(info.test_labels)
    wrong = [
        name
        for name, record in records.items()
        if isinstance(record, Measured) and not _agrees(record, predictions.get(name), labels)
    ]
    return findings + [
        f"{where}: accuracy of {name} differs from its stored predictions: {again(track)}"
        for name in wrong
    ]


def _agrees(record: Measured, predictions: np.ndarray | None, labels: np.ndarray) -> bool:
    return (
        predictions is not None
        and len(predictions) == len(labels)
        and int((predictions == labels).sum()) == record.correct
    )
