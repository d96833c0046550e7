"""Which speed-ups moved between two latency runs of one machine."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.compare.changes import Finding, Move, Pair, as_share, disjoint, finding, relative
from leaderboard.records.latency import LatencyRun, latency
from leaderboard.records.statistics import Estimate
from leaderboard.tables.github import escape
from leaderboard.tables.groups import Group


def find_latency(
    hardware: str, a: LatencyRun, b: LatencyRun, pairs: Sequence[Pair]
) -> list[Finding]:
    """Return for each batch size which speed-ups over dense moved: beyond both runs'
    noise floors and with disjoint intervals.

    A noise floor is of one run; that whole runs differ by more can show as many small
    moves in one direction.
    """
    return [
        _at_batch(f"Speed-up over dense on {hardware}, batch {batch}", a, b, batch, pairs)
        for batch in a.floors
        if batch in b.floors
    ]


def _at_batch(
    title: str, a: LatencyRun, b: LatencyRun, batch: int, pairs: Sequence[Pair]
) -> Finding:
    floor = max(a.floors[batch], b.floors[batch])
    moves, differing, compared = [], 0, 0
    for key, before, after in pairs:
        old, new = _speedup(a, before, batch), _speedup(b, after, batch)
        if old is None or new is None:
            continue
        compared, differing = compared + 1, differing + (old != new)
        change = relative(old.value, new.value)
        if abs(change) > floor and disjoint(old, new):
            moves.append(Move(key, _interval(old), _interval(new), as_share(change), change))
    how = (
        f"Same machine, `{escape(a.machine.fingerprint)}`; moved: by more than both noise floors "
        f"({100 * floor:.1f} %) and with disjoint intervals"
    )
    return finding(title, ("faster", "slower"), moves, differing - len(moves), compared, how)


def _speedup(run: LatencyRun, group: Group, batch: int) -> Estimate | None:
    found = latency(run, group.results.method.name, [point.id for point in group.measured], batch)
    return found.speedup if found is not None else None


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
