"""Rules that whatever was measured meets; numbers that break one were not measured, or
not by this code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from leaderboard.records.errors import one_line
from leaderboard.records.latency import LatencyRun, Report, read_latency
from leaderboard.records.results import MethodResults, TrackResults, read_record
from leaderboard.records.schema import DENSE, CostsFile, Measured
from leaderboard.tables.promised_size import claimed_ratio

# rows are ranked within their needs: a word of its own would win alone
NEEDS = {"data-free", "calibration", "labels", "fine-tune", "scratch"}
# of a chain: several, with + between them
REALISATIONS = {"structural", "packed", "kernel", "masked", "dynamic"}
# a compressed model's MACs and parameters in those of dense; factorising without care
# has tripled them
MOST_COST = 10
MOST_OF_CLAIM = 1.05  # compression ratio in that which the setting's bits or sparsity promise
MOST_SPEEDUP = 100  # realised, median of rounds
FROM_ELSEWHERE = (
    "is from elsewhere already (it has an `origin`): a bundle holds what its maker measured"
)


def findings(track: TrackResults) -> Iterator[str]:
    """Yield a line for everything in a track's results that cannot have been
    measured.
    """
    dense = {point.model: point for point in track.by_name[DENSE].measured}
    for method in track.methods:
        if method.origin is not None:
            yield f"{method.method.name} {FROM_ELSEWHERE}"
        if (
            method.method.needs not in NEEDS
            or not set(method.method.realisation.split("+")) <= REALISATIONS
        ):
            yield (
                f"{method.method.name} says '{one_line(method.method.needs)}', "
                f"'{one_line(method.method.realisation)}': no needs or realisation of ours"
            )
        yield from _of_predictions(track.folder, method)
        for point in method.measured:
            name = one_line(f"{method.method.name} {point.id}")
            yield from (f"{name}: {why}" for why in _of_point(point, dense.get(point.model)))
    for path in latency_files(track.folder):
        yield from (f"{path.parent.name}/{path.name}: {why}" for why in _of_latency(path, track))
    for path in costs_files(track.folder):
        yield from (f"costs/{path.name}: {why}" for why in _of_costs(path))


def latency_files(records: Path) -> list[Path]:
    """Return the latency files in a folder of records, by hardware and machine."""
    return sorted((records / "latency").glob("*/*.json"))


def costs_files(records: Path) -> list[Path]:
    """Return the files of costs in a folder of records, by machine."""
    return sorted((records / "costs").glob("*.json"))


def _of_predictions(records: Path, method: MethodResults) -> Iterator[str]:
    file = records / "predictions" / f"{method.method.name}.safetensors"
    stored = set(load_file(file)) if file.exists() else set()
    strays = sorted(stored - set(method.stored))
    if strays:
        yield (
            f"{method.method.name} has predictions of '{one_line(strays[0])[:80]}', which is no "
            "point of it"
        )
    kinds = {
        str(predicted.dtype)
        for predicted in method.predictions.values()
        if predicted.dtype.kind not in "iu"
    }
    if kinds:
        types = ", ".join(sorted(kinds))
        yield f"{method.method.name} has predictions of type {types}, not classes"


def _of_point(point: Measured, dense: Measured | None) -> Iterator[str]:
    if abs(point.accuracy - point.correct / point.images) > 1e-9:
        yield f"accuracy {point.accuracy:.6f} is not {point.correct} of {point.images}"
    if point.effective_macs > point.macs:
        yield f"{point.effective_macs:.0f} effective MACs are more than its {point.macs} MACs"
    if dense is None:
        yield f"its model '{one_line(point.model)[:40]}' has no dense"
        return
    for cost in ("macs", "parameters"):
        found, most = getattr(point, cost), MOST_COST * getattr(dense, cost)
        if not 0 < found <= most:
            yield f"{found:,} {cost} are not between 1 and {MOST_COST} times those of dense"
    claimed = claimed_ratio(point.setting)
    if claimed is not None and dense.bytes / point.bytes > MOST_OF_CLAIM * claimed:
        yield (
            f"{point.bytes:,} bytes are fewer than its setting leaves: dense has {dense.bytes:,}, "
            f"the setting promises a ratio of {claimed:.2f}"
        )


def _of_latency(path: Path, track: TrackResults) -> Iterator[str]:
    report, run = read_record(path, Report), read_latency(path, track.decided)
    if report.origin is not None:
        yield FROM_ELSEWHERE
    if report.machine_info.shrinkmark.fingerprint != path.stem:
        yield (
            f"was measured on machine '{one_line(report.machine_info.shrinkmark.fingerprint)[:40]}'"
        )
    masked = {
        method.method.name for method in track.methods if method.method.realisation == "masked"
    }
    for point in report.named:
        if point.method in masked:
            yield f"times {one_line(point.method)}, whose zeros no clock can show (masked)"
            return
        if point.key not in track.decided:
            yield f"times a point that the bundle lacks: {one_line(' '.join(point.key))[:80]}"
            return
    yield from _too_fast(run)


def _of_costs(path: Path) -> Iterator[str]:
    costs = read_record(path, CostsFile)
    if costs.origin is not None:
        yield FROM_ELSEWHERE
    if costs.machine.fingerprint != path.stem:
        yield f"is of machine '{one_line(costs.machine.fingerprint)[:40]}'"


def _too_fast(run: LatencyRun) -> Iterator[str]:
    for (method, name, batch), rounds in run.rounds.items():
        speedup = float(np.median(rounds.speedups))
        if speedup > MOST_SPEEDUP:
            yield (
                f"{one_line(f'{method} {name}')} is {speedup:.0f} times as fast as dense at batch "
                f"{batch}, at most {MOST_SPEEDUP} are credible"
            )
