"""A row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from leaderboard.records.latency import Latency
from leaderboard.records.schema import MethodInfo
from leaderboard.records.statistics import Estimate

# model, method and setting: what a row is in every table of its track
RowKey = tuple[str, str, str]


@dataclass(frozen=True)
class Quality:
    """Accuracy, its spread over seeds, and the difference from dense (shares of 1);
    None where there is nothing to compare.
    """

    accuracy: Estimate
    seed_std: float | None
    delta: Estimate | None
    p: float | None
    adjusted_p: float | None = None


@dataclass(frozen=True)
class Costs:
    """Means over seeds: of the model (per image) and of compressing it."""

    bytes: float
    parameters: float
    macs: float
    effective_macs: float
    bit_operations: float
    images: float
    steps: float
    seconds: float | None  # None where no file of costs knows
    peak_mib: float | None


@dataclass(frozen=True)
class Ratios:
    """Dense / compressed; None where dense was not measured or the compressed cost is
    zero.
    """

    compression: float | None
    theoretical_speedup: float | None
    bit_operations: float | None


@dataclass(frozen=True)
class Measurement:
    """All numbers of a row; latency by batch size."""

    quality: Quality
    costs: Costs
    ratios: Ratios
    latency: Mapping[int, Latency]
    unmeasured: str = ""  # why there is no latency, if the run says so


@dataclass(frozen=True)
class Row:
    """One line of a table; `measured` is None where every seed was skipped or
    failed.
    """

    method: MethodInfo
    model: str
    setting: str
    seeds: int
    status: str
    reason: str
    measured: Measurement | None
    claimed: float | None = None  # compression that the setting promises of the weights it touches
    best: tuple[str, ...] = ()
    pareto: tuple[str, ...] = ()
    origin: str = ""  # of results from elsewhere: what is known of them, and the bundle

    @property
    def key(self) -> RowKey:
        """Return what the row is."""
        return self.model, self.method.name, self.setting

    @property
    def masked(self) -> bool:
        """Say whether the saving is zeros in dense tensors, which no clock can show
        unless a runtime has a kernel for them.
        """
        return self.method.realisation == "masked"
