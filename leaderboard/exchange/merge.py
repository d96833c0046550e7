"""Adding a bundle to our results: latency and costs of machines that we lack, and
methods that we lack; everything is checked before anything is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.numpy import save

from leaderboard.exchange.checked import Outside, check_bundle, dense_difference, difference
from leaderboard.exchange.labels import stored
from leaderboard.exchange.plausible import costs_files, latency_files
from leaderboard.records.errors import UserError, one_line
from leaderboard.records.files import write_bytes
from leaderboard.records.latency import Report
from leaderboard.records.results import MethodResults, TrackResults, read_record
from leaderboard.records.schema import DENSE, CostsFile, MethodPoints, Origin

Writes = dict[Path, bytes]


def merge(path: Path, results: Path, version: str) -> list[str]:
    """Add what the bundle `path` holds to results/<version> and return a line for each
    part; raise UserError, with nothing written, if refused.
    """
    with tempfile.TemporaryDirectory() as temporary:
        outside = check_bundle(path, results, Path(temporary))
        ours = _ours(path, outside, version)
        origins = _origins(path, outside, ours)
        new = [method for method in outside.track.methods if method.method.name not in ours.by_name]
        _check_known(path, outside.track, ours)
        writes = {
            target: content
            for method in new
            for target, content in _method_files(
                method, outside.track.folder, ours.folder, origins[method.method.name]
            )
        }
        lines = [
            f"added {method.method.name}: {len(method.points)} points "
            f"({_known(origins[method.method.name])})"
            for method in new
        ]
        decided = ours.decided | {
            (method.method.name, point.id): point.fingerprint
            for method in new
            for point in method.points
        }
        latency, said = _latency(outside, ours, decided)
        costs = _costs(outside, ours)
        for target, content in (writes | latency | costs).items():
            write_bytes(target, content)
    return [*lines, *said, *(f"added costs {target.name}" for target in costs)] or [
        "nothing to add: our results hold all of it"
    ]


def _ours(path: Path, outside: Outside, version: str) -> TrackResults:
    manifest = outside.bundle.manifest
    if manifest.version != version:
        raise UserError(
            f"{path.name} is of version '{manifest.version}', our results are of '{version}': "
            "versions are never mixed"
        )
    if outside.ours is None:
        raise UserError(
            f"we have no results of track '{manifest.track}' to compare {path.name} with: run "
            f"`make repro TRACK={manifest.track}`"
        )
    return outside.ours


def _origins(path: Path, outside: Outside, ours: TrackResults) -> dict[str, Origin]:
    """Return what each method of the bundle carries from now on; a contradicted point
    is refused.
    """
    labels = stored(path, outside)
    for method, points in labels.points.items():
        wrong = next((name for name, label in points.items() if label == "contradicted"), None)
        if wrong is not None:
            raise not_added(
                path, f"{method} {one_line(wrong)} was contradicted when it was run again"
            )
    dense = {name: model.weights_sha256 for name, model in ours.info.models.items()}
    return {
        method: Origin(bundle=outside.bundle.sha256, labels=points, dense=dense)
        for method, points in labels.points.items()
    }


def not_added(path: Path, why: str) -> UserError:
    """Return the error for a bundle that is whole and does not go with our results."""
    return UserError(f"{path.name} is not added: {why}; our results are as they were")


def _known(origin: Origin) -> str:
    again = sum(label != "self-reported" for label in origin.labels.values())
    return f"{again} of {len(origin.labels)} run again"


def _check_known(path: Path, theirs: TrackResults, ours: TrackResults) -> None:
    """Refuse a method that we have unless each of its points is ours; of dense it is
    enough to agree, for another machine trains other weights.
    """
    why = dense_difference(theirs, ours)
    if why is not None:
        raise not_added(path, f"{why}, so that nothing in it compares with ours")
    for method in theirs.methods:
        name = method.method.name
        for point in method.points if name in ours.by_name and name != DENSE else ():
            found = difference(point, method, ours.by_name[name], ours)
            if found.verdict == "different":
                raise not_added(
                    path,
                    f"we have {name} already, and {one_line(point.id)} differs: {found.reason}",
                )


def _method_files(
    method: MethodResults, source: Path, target: Path, origin: Origin
) -> Iterator[tuple[Path, bytes]]:
    """Yield the files of a method that we lack, made of what was read and checked
    alone; predictions first, because points without them cannot be read.
    """
    name = method.method.name
    if method.stored:
        yield target / "predictions" / f"{name}.safetensors", save(dict(method.stored))
    yield (
        target / "points" / f"{name}.json",
        _with_origin(read_record(source / "points" / f"{name}.json", MethodPoints), origin),
    )


def _costs(outside: Outside, ours: TrackResults) -> Writes:
    """Return the files of costs of machines that we lack; what they know of points that
    we have otherwise is not read.
    """
    new = {ours.folder / "costs" / file.name: file for file in costs_files(outside.track.folder)}
    origin = Origin(bundle=outside.bundle.sha256)
    return {
        target: _with_origin(read_record(file, CostsFile), origin)
        for target, file in new.items()
        if not target.exists()
    }


def _with_origin(content: MethodPoints | Report | CostsFile, origin: Origin) -> bytes:
    return f"{content.model_copy(update={'origin': origin}).model_dump_json(indent=1)}\n".encode()


def _latency(
    outside: Outside, ours: TrackResults, decided: Mapping[tuple[str, str], str]
) -> tuple[Writes, list[str]]:
    """Return the latency files to write, and a line for each file of the bundle."""
    writes: Writes = {}
    lines = []
    for file in latency_files(outside.track.folder):
        where = f"{file.parent.name}/{file.name}"
        target, strange = ours.folder / "latency" / where, _strange(file, decided)
        if target.exists():
            lines.append(
                f"kept our own latency {where}: a machine that we have is never overwritten"
            )
        elif strange is not None:
            lines.append(
                f"left out latency {where}: it timed {strange}, which is not ours (other code, "
                "params or dense weights)"
            )
        else:
            writes[target] = _with_origin(
                read_record(file, Report), Origin(bundle=outside.bundle.sha256)
            )
            lines.append(f"added latency {where}")
    return writes, lines


def _strange(file: Path, decided: Mapping[tuple[str, str], str]) -> str | None:
    """Return the first point that was timed for an artefact which is not in our
    results.
    """
    strange = (
        point.key
        for point in read_record(file, Report).named
        if not point.fingerprint or decided.get(point.key) != point.fingerprint
    )
    return next((one_line(" ".join(key))[:80] for key in strange), None)
