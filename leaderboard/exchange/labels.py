"""What is known of the points of a bundle: labels from running a sample of them again,
in a file beside it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from leaderboard.exchange.agreement import Rerun, Verdict, Verification
from leaderboard.exchange.checked import Outside
from leaderboard.records.errors import UserError
from leaderboard.records.results import TrackResults, read_record
from leaderboard.records.schema import WEAKEST_FIRST, Frozen, Label, Sha256

BY_VERDICT: dict[Verdict, Label] = {
    "identical": "reproduced",
    "within tolerance": "within tolerance",
    "different": "contradicted",
}


class Labels(Frozen):
    """<bundle>.labels.json: which bundle, how the sample was drawn (null: nothing was
    run again), and the label of each measured point by method and id.
    """

    bundle: Sha256
    share: float | None
    seed: int | None
    points: dict[str, dict[str, Label]]


@dataclass(frozen=True)
class Again:
    """How much is run again: a share of the points (above 1: so many), the seed of the
    sample (None: the bundle decides), and the experiment.
    """

    share: float
    seed: int | None
    params: Path


def labels_file(bundle: Path) -> Path:
    """Return where the labels of a bundle lie."""
    return bundle.with_name(f"{bundle.name}.labels.json")


def self_reported(outside: Outside) -> Labels:
    """Return the labels of a bundle of which nothing was run again."""
    return Labels(
        bundle=outside.bundle.sha256, share=None, seed=None, points=_labelled(outside.track, ())
    )


def run_again(outside: Outside, again: Again) -> tuple[Labels, tuple[Rerun, ...]]:
    """Run a sample of the points again through the harness, in a process of its own;
    return the labels and what each comparable one gave.
    """
    # nobody can fit the rest of a bundle to a sample drawn from all of it
    seed = int(outside.bundle.sha256[:8], 16) if again.seed is None else again.seed
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        what = [
            "rerun",
            outside.track.info.track,
            "--records",
            str(outside.track.folder),
            "--params",
            str(again.params),
        ]
        how = ["--share", str(again.share), "--seed", str(seed), "--report", str(report)]
        done = subprocess.run(
            [sys.executable, "-m", "shrinkmark", *what, *how],
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode not in (0, 1) or not report.exists():
            raise UserError(
                f"running points again ended with exit code {done.returncode}: see the line above"
            )
        found = comparable(read_record(report, Verification), outside.track)
    return Labels(
        bundle=outside.bundle.sha256,
        share=again.share,
        seed=seed,
        points=_labelled(outside.track, found),
    ), found


def comparable(found: Verification, track: TrackResults) -> tuple[Rerun, ...]:
    """Return the points that were run again but for those that differ where dense
    itself came out otherwise: they were made of other weights.
    """
    models = {
        (method.method.name, point.id): point.model
        for method in track.methods
        for point in method.measured
    }
    return tuple(
        point
        for point in found.points
        if point.verdict != "different" or found.dense[models[point.method, point.id]]
    )


def stored(path: Path, outside: Outside) -> Labels:
    """Return the labels beside the bundle `path`, or that it is self-reported where
    there are none; raise UserError if they are another bundle's.
    """
    file = labels_file(path)
    if not file.exists():
        return self_reported(outside)
    labels = read_record(file, Labels)
    measured = {
        method.method.name: {point.id for point in method.measured}
        for method in outside.track.methods
    }
    if (
        labels.bundle != outside.bundle.sha256
        or {name: set(points) for name, points in labels.points.items()} != measured
    ):
        raise UserError(
            f"{file.name} is not about {path.name} as it is now: run `shrinkmark check bundle "
            f"{path.name}` again"
        )
    return labels


def counted(labels: Labels) -> str:
    """Return how many points have which label, on one line."""
    found = Counter(label for points in labels.points.values() for label in points.values())
    return ", ".join(f"{found[label]} {label}" for label in reversed(WEAKEST_FIRST) if found[label])


def _labelled(track: TrackResults, found: tuple[Rerun, ...]) -> dict[str, dict[str, Label]]:
    known = {(point.method, point.id): BY_VERDICT[point.verdict] for point in found}
    return {
        method.method.name: {
            point.id: known.get((method.method.name, point.id), "self-reported")
            for point in method.measured
        }
        for method in track.methods
    }
