"""Two results beside each other: which rows both have, what moved, what became of the
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leaderboard.compare.changes import Finding, Pair, Snapshot, find_accuracy, find_exact
from leaderboard.compare.latency_changes import find_latency
from leaderboard.compare.sources import Side, tracks_of
from leaderboard.records import version2
from leaderboard.records.errors import UserError, unknown
from leaderboard.records.latency import LatencyRun, read_latency
from leaderboard.records.results import TrackResults, of_version2, read_track
from leaderboard.tables.groups import Group, find_groups
from leaderboard.tables.rows import RowKey


@dataclass(frozen=True)
class StatusChange:
    """A row that both have, whose seeds fared otherwise."""

    key: RowKey
    before: str
    after: str


@dataclass(frozen=True)
class TrackComparison:
    """What became of one track: quantities that were compared, latency that was not,
    rows of another status, rows of one side only.
    """

    track: str
    both: int
    findings: tuple[Finding, ...]
    not_compared: tuple[str, ...]
    statuses: tuple[StatusChange, ...]
    only_a: tuple[RowKey, ...]
    only_b: tuple[RowKey, ...]

    @property
    def moved(self) -> bool:
        """Say whether anything did."""
        return bool(
            self.statuses
            or self.only_a
            or self.only_b
            or any(finding.moves for finding in self.findings)
        )


@dataclass(frozen=True)
class Comparison:
    """Two sides, the tracks of both, and those that one of them lacks."""

    a: Side
    b: Side
    tracks: tuple[TrackComparison, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def compare(a: Side, b: Side, track: str | None) -> Comparison:
    """Return what moved from `a` to `b` in one track, by default in all that both
    have.
    """
    of_a, of_b = _tracks(a), _tracks(b)
    if track is not None and track not in {*of_a, *of_b}:
        raise unknown("track", track, {*of_a, *of_b})
    asked = [name for name in of_a if name in of_b and track in (None, name)]
    if not asked:
        raise UserError(
            f"no track to compare: {a.name} holds {', '.join(of_a) or 'none'}; {b.name} holds "
            f"{', '.join(of_b) or 'none'}"
        )
    only_a, only_b = (
        tuple(name for name in mine if name not in other and track is None)
        for mine, other in ((of_a, of_b), (of_b, of_a))
    )
    return Comparison(
        a,
        b,
        tuple(compare_track(name, _snapshot(a, name), _snapshot(b, name)) for name in asked),
        only_a,
        only_b,
    )


def compare_track(track: str, a: Snapshot, b: Snapshot) -> TrackComparison:
    """Return what moved between two snapshots of a track; rows are matched by model,
    method and setting.
    """
    shared = [(key, group, b.groups[key]) for key, group in a.groups.items() if key in b.groups]
    pairs = [(key, old, new) for key, old, new in shared if old.measured and new.measured]
    bytes_, macs = (
        find_exact("Bytes", pairs, lambda point: point.bytes),
        find_exact("MACs", pairs, lambda point: point.macs),
    )
    latencies, not_compared = _latencies(a, b, pairs)
    statuses = tuple(
        StatusChange(key, _status(old), _status(new))
        for key, old, new in shared
        if old.status() != new.status()
    )
    only_a = tuple(key for key in a.groups if key not in b.groups)
    only_b = tuple(key for key in b.groups if key not in a.groups)
    return TrackComparison(
        track,
        len(shared),
        (find_accuracy(a, b, pairs), bytes_, macs, *latencies),
        not_compared,
        statuses,
        only_a,
        only_b,
    )


def _latencies(
    a: Snapshot, b: Snapshot, pairs: Sequence[Pair]
) -> tuple[list[Finding], tuple[str, ...]]:
    """Return what moved on each hardware that the same machine measured for both, and
    why others are not compared.
    """
    findings: list[Finding] = []
    reasons: list[str] = []
    for hardware in dict.fromkeys([*a.runs, *b.runs]):
        old, new = (
            {run.machine.fingerprint: run for run in side.runs.get(hardware, ())} for side in (a, b)
        )
        for fingerprint in [fingerprint for fingerprint in old if fingerprint in new]:
            findings += find_latency(hardware, old[fingerprint], new[fingerprint], pairs)
        if not old or not new:
            reasons.append(f"{hardware}: not compared: timed only in {'A' if old else 'B'}")
        elif not set(old) & set(new):
            reasons.append(
                f"{hardware}: not compared: other machine ({', '.join(old)} in A, "
                f"{', '.join(new)} in B)"
            )
    return findings, tuple(reasons)


def _tracks(side: Side) -> list[str]:
    return tracks_of(side.results / side.version)


def _snapshot(side: Side, track: str) -> Snapshot:
    try:
        home = side.results / side.version
        content = (
            version2.read_track(home, track)
            if of_version2(home)
            else read_track(side.results, side.version, track)
        )
        return Snapshot(
            content.info, {group.key: group for group in find_groups(content)}, _runs(content)
        )
    except UserError as error:
        raise UserError(f"{side.name} cannot be read by this code: {error}") from None


def _runs(content: TrackResults) -> dict[str, list[LatencyRun]]:
    """Return the latency runs by hardware: latency/<hardware>/<fingerprint>.json,
    before version v2 was timed latency/<hardware>.json.
    """
    folder: Path = content.folder / "latency"
    files = [(path.stem, path) for path in sorted(folder.glob("*.json"))] + [
        (path.parent.name, path) for path in sorted(folder.glob("*/*.json"))
    ]
    runs: dict[str, list[LatencyRun]] = {}
    for hardware, path in files:
        runs.setdefault(hardware, []).append(read_latency(path, content.decided))
    return runs


def _status(group: Group) -> str:
    return f"{group.status()}: {group.reason()}" if group.reason() else group.status()
