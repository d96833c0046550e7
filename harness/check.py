"""Whether the committed results belong to the committed code and params; needs no artefacts."""

from __future__ import annotations

from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from harness import files, fingerprint
from harness.errors import UserError
from harness.params import Params
from harness.paths import Paths
from harness.points import expand

NEEDED = ("version", "content_hash", "test_labels", "models")  # of track.json


def again(track: str) -> str:
    """Return the remedy for results that are behind."""
    return f"run dvc repro leaderboard@{track}"


def check_results(params: Params, paths: Paths) -> list[str]:
    """Return one line for everything in results/<version>/records that the code and params at hand did not make; tracks never run are passed over."""
    found = [path.name for path in sorted(paths.records("x").parent.glob("*"))]
    findings = [f"{name}: no track of params.yaml: delete {paths.records(name)}" for name in found if name not in params.tracks]
    for track in (name for name in params.tracks if name in found):
        try:
            record = files.read_json(paths.records(track) / "track.json")
        except UserError as error:
            findings.append(str(error))
            continue
        if lacking := [key for key in NEEDED if key not in record]:
            findings.append(f"{track}: track.json lacks {', '.join(lacking)}: {again(track)}")
            continue
        findings += _check_dense(params, track, record)
        for method in params.plans:
            findings += _check_method(params, paths, track, method, record)
        known = {f"{method}.json" for method in params.plans}
        strays = [path for path in sorted((paths.records(track) / "points").glob("*")) if path.name not in known]
        findings += [f"{track}: {path.name} belongs to no method of params.yaml: delete it" for path in strays]
        missing = [name for name in params.hardware if not any(paths.latency(track, name).glob("*.json"))]
        findings += [f"{track}: no latency of hardware '{name}': {again(track)}" for name in missing]
    return findings


def _check_dense(params: Params, track: str, record: dict[str, Any]) -> list[str]:
    if record.get("version") != params.version:
        return [f"{track}: track.json is of version {record.get('version')}, params.yaml says {params.version}: {again(track)}"]
    stale = [model for model in params.track(track).models if not _dense_stands(params, track, model, record)]
    return [f"{track}: dense model '{model}' was not made by this code and params: {again(track)}" for model in stale]


def _dense_stands(params: Params, track: str, model: str, record: dict[str, Any]) -> bool:
    wanted = fingerprint.dense_fingerprint(params, track, model, record["content_hash"])
    return bool(record["models"].get(model, {}).get("fingerprint") == wanted)


def _check_method(params: Params, paths: Paths, track: str, method: str, track_record: dict[str, Any]) -> list[str]:
    where = f"{track} {method}"
    try:
        content = files.read_json(paths.points(track, method))
        records = {record["id"]: record for record in content["points"]}
        wanted = {
            point.id: fingerprint.point_fingerprint(params, point, track_record)
            for point in expand(params, track, method)
            if point.model in track_record["models"]
        }
        predictions = safetensors.numpy.load(paths.predictions(track, method).read_bytes())
    except (UserError, OSError, SafetensorError, KeyError) as error:
        return [f"{where}: {error}"]
    if content.get("content_hash") != track_record["content_hash"]:
        return [f"{where}: results are of other data than track.json: {again(track)}"]
    if content.get("version") != params.version:
        return [f"{where}: results are of version {content.get('version')}, params.yaml says {params.version}: {again(track)}"]
    if set(records) != set(wanted):
        odd = sorted(set(records) ^ set(wanted))
        return [f"{where}: points differ from params.yaml ({len(odd)}, e.g. {odd[0]}): {again(track)}"]
    stale = [name for name, record in records.items() if record.get("fingerprint") != wanted[name]]
    findings = [f"{where}: {len(stale)} points were not made by this code and params (e.g. {stale[0]}): {again(track)}"] if stale else []
    labels = np.array(track_record["test_labels"])
    wrong = [name for name, record in records.items() if record["status"] == "ok" and not _agrees(record, predictions.get(name), labels)]
    return findings + [f"{where}: accuracy of {name} differs from its stored predictions: {again(track)}" for name in wrong]


def _agrees(record: dict[str, Any], predictions: np.ndarray | None, labels: np.ndarray) -> bool:
    return predictions is not None and len(predictions) == len(labels) and int((predictions == labels).sum()) == record["correct"]
