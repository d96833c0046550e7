"""Latency as pytest-benchmark stored it: raw seconds of a point, interleaved with dense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from leaderboard.errors import ResultsError, one_line
from leaderboard.results import read_json
from leaderboard.schema import DENSE, Frozen
from leaderboard.statistics import Estimate, Floats, is_tie, median, noise_floor, paired_ratios


class Machine(Frozen):
    """The fingerprint of the machine that measured."""

    cpu: str
    cores: PositiveInt
    governor: str | None = None
    threads: PositiveInt
    torch: str
    fingerprint: str


class MachineInfo(Frozen):
    """Our part of pytest-benchmark's machine info."""

    compressbench: Machine


class Stats(Frozen):
    """The seconds of every round."""

    data: tuple[PositiveFloat, ...] = Field(min_length=1)


class ExtraInfo(Frozen):
    """Which point was measured, and the seconds of dense around every round."""

    method: str
    model: str
    id: str
    batch: PositiveInt
    dense: tuple[PositiveFloat, ...]


class Benchmark(Frozen):
    """One point at one batch size."""

    stats: Stats
    extra_info: ExtraInfo


class PointName(Frozen):
    """A point of a track."""

    method: str
    id: str


class SameProgram(PointName):
    """A point that was not measured because another one, `timed`, runs its program with other weights."""

    timed: PointName


class Report(Frozen):
    """latency/<hardware>.json."""

    machine_info: MachineInfo
    benchmarks: tuple[Benchmark, ...]
    same_program: tuple[SameProgram, ...] = ()


@dataclass(frozen=True)
class Rounds:
    """A point's rounds at one batch size: seconds (n,) and paired speed-ups (n,)."""

    seconds: Floats
    speedups: Floats


@dataclass(frozen=True)
class LatencyRun:
    """One measuring run: the machine, rounds by (method, point id, batch), the noise floor by batch, and which point was timed in place of another."""

    machine: Machine
    rounds: Mapping[tuple[str, str, int], Rounds]
    floors: Mapping[int, float]
    timed: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Latency:
    """Seconds of a batch and the realised speed-up; a tie is not ranked; `as_dense`: dense's own seconds, because the program is dense's own."""

    p50: Estimate
    p95: float
    speedup: Estimate
    tie: bool
    as_dense: bool = False


def read_latency(path: Path) -> LatencyRun | None:
    """Read a latency run, or return None if this hardware has not been measured."""
    if not path.exists():
        return None
    report = read_json(path, Report)
    rounds = {(b.extra_info.method, b.extra_info.id, b.extra_info.batch): _rounds(path, b) for b in report.benchmarks}
    timed = {(point.method, point.id): (point.timed.method, point.timed.id) for point in report.same_program}
    batches = sorted({batch for _, _, batch in rounds})
    return LatencyRun(report.machine_info.compressbench, rounds, {batch: _floor(path, rounds, batch) for batch in batches}, timed)


def latency(run: LatencyRun, method: str, ids: Sequence[str], batch: int) -> Latency | None:
    """Return the latency over all rounds of the points `ids` (the seeds of one row), or None if none was measured."""
    timed = [run.timed.get((method, name), (method, name)) for name in ids]
    found = [run.rounds[*point, batch] for point in timed if (*point, batch) in run.rounds]
    if not found:
        return None
    seconds = np.concatenate([rounds.seconds for rounds in found])
    if method != DENSE and timed[0][0] == DENSE:
        return Latency(median(seconds), float(np.quantile(seconds, 0.95)), Estimate(1.0, 1.0, 1.0), tie=True, as_dense=True)
    speedup = median(np.concatenate([rounds.speedups for rounds in found]))
    return Latency(median(seconds), float(np.quantile(seconds, 0.95)), speedup, is_tie(speedup, run.floors[batch]))


def _rounds(path: Path, benchmark: Benchmark) -> Rounds:
    seconds, dense = np.asarray(benchmark.stats.data), np.asarray(benchmark.extra_info.dense)
    if len(dense) != len(seconds) + 1:
        name = one_line(f"{benchmark.extra_info.method} {benchmark.extra_info.id}")
        raise ResultsError(f"{path}: '{name}' has {len(seconds)} rounds and {len(dense)} of dense around them, not one more: measure again")
    return Rounds(seconds, paired_ratios(dense, seconds))


def _floor(path: Path, rounds: Mapping[tuple[str, str, int], Rounds], batch: int) -> float:
    """Return the noise floor at `batch` from the points of dense, which were measured against dense (A/A)."""
    controls = [median(value.speedups) for (method, _, size), value in rounds.items() if method == DENSE and size == batch]
    if not controls:
        raise ResultsError(f"{path} has no A/A control at batch {batch}: measure the method 'dense' in the same run")
    return noise_floor(controls)
