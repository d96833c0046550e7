"""Whether the results at hand are those that were committed: byte for byte, or how
near, and why they may differ.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from harness.run.paths import Paths
from leaderboard.exchange.agreement import Agreement, Verdict, agreement_of
from leaderboard.records.errors import UserError
from leaderboard.records.params import Params
from leaderboard.records.results import TrackResults, read_record, read_track
from leaderboard.records.schema import CostsFile

# of a track: what a machine of the same instruction set writes byte for byte
SAME = ("track.json", "points", "predictions")


@dataclass(frozen=True)
class Reproduction:
    """What is to be said of a track, and whether a point has another result although
    nothing that decides it has changed.
    """

    line: str
    contradicted: bool


def reproductions(params: Params, paths: Paths) -> Iterator[Reproduction]:
    """Yield for each track that is committed and at hand how its results compare;
    nothing where there is no git checkout with results.
    """
    for track in params.tracks:
        home = paths.records(track).relative_to(paths.root).as_posix()
        committed = (
            _git(
                paths.root,
                "ls-tree",
                "-r",
                "--name-only",
                "HEAD",
                "--",
                *(f"{home}/{name}" for name in SAME),
            )
            .decode()
            .split()
        )
        if not committed or not (paths.records(track) / "track.json").exists():
            continue
        changed = _git(paths.root, "diff", "--name-only", "HEAD", "--", *committed).decode().split()
        if changed:
            yield _compared(params, paths, track, home, changed)
        else:
            yield Reproduction(
                f"{track}: {len(committed)} files of dense models, points and predictions are "
                "those committed, byte for byte",
                False,
            )


def _git(root: Path, *arguments: str) -> bytes:
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""


def _compared(
    params: Params, paths: Paths, track: str, home: str, changed: list[str]
) -> Reproduction:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(
            fileobj=io.BytesIO(_git(paths.root, "archive", "HEAD", "--", home))
        ) as archive:
            archive.extractall(folder, filter="data")
        try:
            before = read_track(Path(folder) / "results", params.version, track)
            after = read_track(paths.root / "results", params.version, track)
        except UserError as error:
            return Reproduction(
                f"{track}: {len(changed)} files differ from those committed and cannot be "
                f"compared: {error}",
                False,
            )
        made_with = {
            read_record(file, CostsFile).machine.instructions
            for file in (before.folder / "costs").glob("*.json")
        }
        return _said(track, before, after, made_with)


def _said(
    track: str, before: TrackResults, after: TrackResults, made_with: set[str]
) -> Reproduction:
    found = list(_points(before, after))
    count = Counter(agreement.verdict for agreement, _ in found)
    sums = ", ".join(f"{count[verdict]} {verdict}" for verdict in get_args(Verdict))
    other = sorted(set(before.info.models) ^ set(after.info.models))
    own = torch.backends.cpu.get_cpu_capability()
    kept = [agreement for agreement, same in found if same and agreement.verdict != "identical"]
    if made_with and own not in made_with:
        why = (
            f"this machine computes with {own}, they were made with "
            f"{' and '.join(sorted(made_with))}, by which training takes other paths"
        )
    elif kept:
        why = (
            f"{len(kept)} of them under the fingerprint of before, although this machine computes "
            f"with {own} as the one that made them"
        )
    elif other and len(found) == count["identical"]:
        why = f"beside them models that one side alone has: {', '.join(other)}"
    else:
        why = "code, params or data have changed: their fingerprints differ"
    return Reproduction(
        f"{track}: of {len(found)} points that are committed and at hand {sums} ({why})", bool(kept)
    )


def _points(before: TrackResults, after: TrackResults) -> Iterator[tuple[Agreement, bool]]:
    """Yield for each point of both how it compares, and whether all that decides it is
    the same.
    """
    for method in before.methods:
        again = after.by_name.get(method.method.name)
        points = {point.id: point for point in again.measured} if again else {}
        for old in method.measured:
            new = points.get(old.id)
            if again and new:
                pair = (old, method.predictions[old.id]), (new, again.predictions[new.id])
                yield agreement_of(*pair, before.labels), old.fingerprint == new.fingerprint
