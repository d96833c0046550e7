"""Whether the committed results belong to the committed code and params; needs no artefacts."""

from __future__ import annotations

from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from harness import files, fingerprint
from harness.errors import UserError
from harness.params import Params
from harness.points import Paths, expand


def check_results(params: Params, paths: Paths) -> list[str]:
    """Return one line for everything in results/<version>/records that the code and params at hand did not make."""
    findings = []
    for track in params.tracks:
        try:
            record = files.read_json(paths.records(track) / "track.json")
        except UserError as error:
            findings.append(str(error))
            continue
        findings += _check_dense(params, track, record)
        for method in params.methods:
            findings += _check_method(params, paths, track, method, record)
        known = {f"{method}.json" for method in params.methods}
        strays = [path for path in sorted((paths.records(track) / "points").iterdir()) if path.name not in known]
        findings += [f"{track}: {path.name} belongs to no method of params.yaml: delete it" for path in strays]
        missing = [name for name in params.hardware if not paths.latency(track, name).exists()]
        findings += [f"{track}: no latency of hardware '{name}': run dvc repro" for name in missing]
    return findings


def _check_dense(params: Params, track: str, record: dict[str, Any]) -> list[str]:
    if record.get("version") != params.version:
        return [f"{track}: track.json is of version {record.get('version')}, params.yaml says {params.version}: run dvc repro"]
    stale = [model for model in params.track(track).models if not _dense_stands(params, track, model, record)]
    return [f"{track}: dense model '{model}' was not made by this code and params: run dvc repro" for model in stale]


def _dense_stands(params: Params, track: str, model: str, record: dict[str, Any]) -> bool:
    return bool(record["models"].get(model, {}).get("fingerprint") == fingerprint.dense_fingerprint(params, track, model))


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
    if content.get("version") != params.version:
        return [f"{where}: results are of version {content.get('version')}, params.yaml says {params.version}: run dvc repro"]
    if set(records) != set(wanted):
        odd = sorted(set(records) ^ set(wanted))
        return [f"{where}: points differ from params.yaml ({len(odd)}, e.g. {odd[0]}): run dvc repro"]
    stale = [name for name, record in records.items() if record["fingerprint"] != wanted[name]]
    findings = [f"{where}: {len(stale)} points were not made by this code and params (e.g. {stale[0]}): run dvc repro"] if stale else []
    labels = np.array(track_record["test_labels"])
    wrong = [name for name, record in records.items() if record["status"] == "ok" and not _agrees(record, predictions.get(name), labels)]
    return findings + [f"{where}: accuracy of {name} differs from its stored predictions: run dvc repro" for name in wrong]


def _agrees(record: dict[str, Any], predictions: np.ndarray | None, labels: np.ndarray) -> bool:
    return predictions is not None and len(predictions) == len(labels) and int((predictions == labels).sum()) == record["correct"]
