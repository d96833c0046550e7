"""Checking a bundle from elsewhere: its form, its numbers among themselves, and against
ours where both have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from leaderboard.exchange.agreement import Agreement, agreement_of
from leaderboard.exchange.bundle import Bundle, read_bundle, refused
from leaderboard.exchange.plausible import findings
from leaderboard.records.errors import UserError, one_line
from leaderboard.records.results import (
    MethodResults,
    TrackResults,
    find_tracks,
    read_records,
    read_track,
)
from leaderboard.records.schema import DENSE, Measured, Unmeasured


@dataclass(frozen=True)
class Outside:
    """A bundle that was taken apart and checked: what it holds, and our results of its
    track, or None where we have none of its version.
    """

    bundle: Bundle
    track: TrackResults
    ours: TrackResults | None


def check_bundle(path: Path, results: Path, folder: Path) -> Outside:
    """Unpack the bundle into the empty `folder` and check it; raise UserError for the
    first thing that is wrong.
    """
    bundle = read_bundle(path)
    version, name = bundle.manifest.version, bundle.manifest.track
    ours = (
        read_track(results, version, name)
        if (results / version).is_dir() and name in find_tracks(results, version)
        else None
    )
    try:
        track = read_records(bundle.unpack(folder), version, name)
        found = [*findings(track), *(_against(track, ours) if ours is not None else ())]
    except UserError as error:
        # its file, as the bundle names it
        raise refused(path, str(error).replace(f"{folder}/", "")) from None
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise refused(path, f"{found[0]}{more}")
    return Outside(bundle, track, ours)


def difference(
    theirs: Measured | Unmeasured, of: MethodResults, ours: MethodResults, track: TrackResults
) -> Agreement:
    """Compare a point of a bundle with the one of ours that has its id: `different`
    where we lack it or were given other code, params or dense weights.
    """
    mine = next((point for point in ours.points if point.id == theirs.id), None)
    if mine is None:
        return Agreement(verdict="different", reason="we have no such point")
    if theirs.fingerprint != mine.fingerprint:
        return Agreement(
            verdict="different",
            reason="made by other code, params or dense weights (its fingerprint is not ours)",
        )
    if isinstance(theirs, Measured) and isinstance(mine, Measured):
        return agreement_of(
            (mine, ours.predictions[mine.id]), (theirs, of.predictions[theirs.id]), track.labels
        )
    if theirs.status != mine.status:
        return Agreement(verdict="different", reason=f"{theirs.status}, ours is {mine.status}")
    return Agreement(verdict="identical")


def dense_difference(theirs: TrackResults, ours: TrackResults) -> str | None:
    """Return where dense of a bundle and ours do not agree, whatever weights they have,
    or None.
    """
    mine = {point.model: point for point in ours.by_name[DENSE].measured}
    for point in theirs.by_name[DENSE].measured:
        if point.model not in mine:
            return f"we have no model '{one_line(point.model)[:40]}'"
        old = (mine[point.model], ours.by_name[DENSE].predictions[mine[point.model].id])
        found = agreement_of(old, (point, theirs.by_name[DENSE].predictions[point.id]), ours.labels)
        if found.verdict == "different":
            return f"dense {one_line(point.model)[:40]} is not ours: {found.reason}"
    return None


def _against(theirs: TrackResults, ours: TrackResults) -> Iterator[str]:
    """Yield what contradicts our results of the same version: other data, or other
    numbers under the same fingerprint.
    """
    if theirs.info.content_hash != ours.info.content_hash:
        yield (
            f"it rests on data '{one_line(theirs.info.content_hash)[:16]}…', ours on "
            f"'{ours.info.content_hash[:16]}…'"
        )
    elif theirs.info.test_labels != ours.info.test_labels:
        yield "its test labels are not ours"
    else:
        for method in theirs.methods:
            if method.method.name in ours.by_name:
                yield from _points_against(method, ours.by_name[method.method.name], ours)


def _points_against(
    method: MethodResults, mine: MethodResults, ours: TrackResults
) -> Iterator[str]:
    fingerprints = {point.id: point.fingerprint for point in mine.points}
    for point in method.measured:
        if point.fingerprint and fingerprints.get(point.id) == point.fingerprint:
            found = difference(point, method, mine, ours)
            if found.verdict == "different":
                yield (
                    f"{method.method.name} {one_line(point.id)} has the fingerprint of ours and "
                    f"other numbers: {found.reason}"
                )
