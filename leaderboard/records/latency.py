"""Latency as pytest-benchmark stored it: raw seconds of a point, interleaved with
dense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from leaderboard.records.errors import UserError, one_line
from leaderboard.records.results import read_record
from leaderboard.records.schema import DENSE, Frozen, Origin
from leaderboard.records.statistics import (
    Estimate,
    Floats,
    is_tie,
    median,
    noise_floor,
    paired_ratios,
)


class Machine(Frozen):
    """The fingerprint of the machine that measured."""

    cpu: str
    cores: PositiveInt
    governor: str | None = None
    gpu: str | None = None
    threads: PositiveInt
    torch: str
    runtime: str | None = None  # beside torch
    sparse: str | None = None  # zeros that its kernels leave out
    fingerprint: str


class MachineInfo(Frozen):
    """Our part of pytest-benchmark's machine info."""

    shrinkmark: Machine


class Stats(Frozen):
    """The seconds of every round."""

    data: tuple[PositiveFloat, ...] = Field(min_length=1)


class PointName(Frozen):
    """A point of a track, and what decided it when it was measured."""

    method: str
    id: str
    fingerprint: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Return method and id."""
        return self.method, self.id


class Agreement(Frozen):
    """For how many test images the runtime predicted what the artefact predicted."""

    same: NonNegativeInt
    images: PositiveInt


class ExtraInfo(PointName):
    """Which point was measured, the seconds of dense around every round, and what else
    was seen.
    """

    model: str
    batch: PositiveInt
    dense: tuple[PositiveFloat, ...]
    agreement: Agreement | None = None
    peak_mib: float | None = None  # of one call


class Benchmark(Frozen):
    """One point at one batch size."""

    stats: Stats
    extra_info: ExtraInfo


class SameProgram(PointName):
    """A point that was not measured because another one, `timed`, runs its program with
    other weights.
    """

    timed: PointName


class Failed(PointName):
    """A point that could not be measured."""

    reason: str


class Report(Frozen):
    """latency/<hardware>/<fingerprint of the machine>.json."""

    machine_info: MachineInfo
    benchmarks: tuple[Benchmark, ...]
    same_program: tuple[SameProgram, ...] = ()
    failed: tuple[Failed, ...] = ()
    origin: Origin | None = None  # of what was not measured here

    @property
    def named(self) -> tuple[PointName, ...]:
        """Return every point that was timed, or stands for one that was."""
        return (*(benchmark.extra_info for benchmark in self.benchmarks), *self.same_program)


@dataclass(frozen=True)
class Rounds:
    """A point's rounds at one batch size: seconds (n,), paired speed-ups (n,), the
    share of images on which the runtime agrees, MiB at the peak.
    """

    seconds: Floats
    speedups: Floats
    agreement: float | None = None
    peak_mib: float | None = None


Key = tuple[str, str]  # method and id of a point


@dataclass(frozen=True)
class LatencyRun:
    """One measuring run: the machine, rounds by (method, point id, batch), the noise
    floor by batch, which point was timed in place of another, and why points have no
    rounds.
    """

    machine: Machine
    rounds: Mapping[tuple[str, str, int], Rounds]
    floors: Mapping[int, float]
    timed: Mapping[Key, Key] = field(default_factory=dict)
    reasons: Mapping[Key, str] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(frozen=True)
class Latency:
    """Seconds of a batch and the realised speed-up; a tie is not ranked; `as_dense`:
    dense's own seconds, because the program is dense's own.
    """

    p50: Estimate
    p95: float
    p99: float
    speedup: Estimate
    tie: bool
    as_dense: bool = False
    agreement: float | None = None
    peak_mib: float | None = None


STALE = "measured for other code or params: measure again"


def read_latency(path: Path, decided: Mapping[Key, str]) -> LatencyRun:
    """Read a latency run; `decided` is the fingerprint of every point of the track.
    What was measured for another artefact is left out, with its reason.
    """
    report = read_record(path, Report)
    stale = {
        point.key: STALE
        for point in report.named
        if point.fingerprint and decided.get(point.key, "") not in ("", point.fingerprint)
    }
    if any(method == DENSE for method, _ in stale):
        stale = {point.key: STALE for point in report.named}
    fresh = [benchmark for benchmark in report.benchmarks if benchmark.extra_info.key not in stale]
    rounds = {(*b.extra_info.key, b.extra_info.batch): _rounds(path, b) for b in fresh}
    timed = {
        point.key: point.timed.key
        for point in report.same_program
        if point.key not in stale and point.timed.key not in stale
    }
    floors = {
        batch: _floor(path, rounds, batch) for batch in sorted({batch for _, _, batch in rounds})
    }
    reasons = {point.key: one_line(point.reason) for point in report.failed}
    return LatencyRun(
        report.machine_info.shrinkmark, rounds, floors, timed, reasons | stale, report.origin
    )


def latency(run: LatencyRun, method: str, ids: Sequence[str], batch: int) -> Latency | None:
    """Return the latency over all rounds of the points `ids` (the seeds of one row), or
    None if none was measured.
    """
    timed = [run.timed.get((method, name), (method, name)) for name in ids]
    found = [run.rounds[*point, batch] for point in timed if (*point, batch) in run.rounds]
    if not found:
        return None
    seconds = np.concatenate([rounds.seconds for rounds in found])
    p95, p99 = (float(quantile) for quantile in np.quantile(seconds, [0.95, 0.99]))
    about = (found[0].agreement, found[0].peak_mib)
    if method != DENSE and timed[0][0] == DENSE:
        return Latency(median(seconds), p95, p99, Estimate(1.0, 1.0, 1.0), True, True, *about)
    speedup = median(np.concatenate([rounds.speedups for rounds in found]))
    return Latency(
        median(seconds), p95, p99, speedup, is_tie(speedup, run.floors[batch]), False, *about
    )


def _rounds(path: Path, benchmark: Benchmark) -> Rounds:
    about = benchmark.extra_info
    seconds, dense = np.asarray(benchmark.stats.data), np.asarray(about.dense)
    if len(dense) != len(seconds) + 1:
        name = one_line(f"{about.method} {about.id}")
        raise UserError(
            f"{path}: '{name}' has {len(seconds)} rounds and {len(dense)} of dense around them, "
            "not one more: measure again"
        )
    agreement = about.agreement.same / about.agreement.images if about.agreement else None
    return Rounds(seconds, paired_ratios(dense, seconds), agreement, about.peak_mib)


def _floor(path: Path, rounds: Mapping[tuple[str, str, int], Rounds], batch: int) -> float:
    """Return the noise floor at `batch` from the points of dense, which were measured
    against dense (A/A).
    """
    controls = [
        median(value.speedups)
        for (method, _, size), value in rounds.items()
        if method == DENSE and size == batch
    ]
    if not controls:
        raise UserError(
            f"{path} has no A/A control at batch {batch}: measure the method 'dense' in the same "
            "run"
        )
    return noise_floor(controls)
