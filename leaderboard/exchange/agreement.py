"""Whether two runs of a point agree: the same numbers, numbers as near as two machines
come, or others.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leaderboard.records.results import Predictions
from leaderboard.records.schema import Frozen, Measured
from leaderboard.records.statistics import sign_flip_p

# shares of the recorded number
TOLERANCES = {
    "macs": 0.005,
    "parameters": 0.005,
    "bytes": 0.01,
    "effective_macs": 0.05,
    "bit_operations": 0.05,
}
LEVEL = 0.01  # of the paired exact test between the predictions of both runs
RULE = (
    "within tolerance: MACs and parameters within 0.5 %, bytes within 1 %, effective MACs and "
    "bit-operations, which depend on where zeros fall, within 5 %, "
    "and no significant difference of accuracy (paired exact test on the predictions, p >= 0.01)"
)
Verdict = Literal["identical", "within tolerance", "different"]


class Agreement(Frozen):
    """A verdict, and for any but `identical` what differs."""

    verdict: Verdict
    reason: str = ""


class Rerun(Agreement):
    """What running a point again gave."""

    method: str
    id: str


class Verification(Frozen):
    """What `shrinkmark rerun` writes: whether each dense model came out the same to the
    bit, and every point that was run again.
    """

    dense: dict[str, bool]
    points: tuple[Rerun, ...]


def agreement_of(
    recorded: tuple[Measured, Predictions],
    again: tuple[Measured, Predictions],
    labels: NDArray[np.int_],
) -> Agreement:
    """Compare two runs of a point, each its numbers and its (images,) predictions, by
    the rule above; labels: (images,).
    """
    (old, before), (new, after) = recorded, again
    if before.shape != after.shape:
        return Agreement(
            verdict="different", reason=f"{len(after)} predictions, recorded are {len(before)}"
        )
    counts = {name: (float(getattr(old, name)), float(getattr(new, name))) for name in TOLERANCES}
    changed = int((before != after).sum())
    if not changed and all(found == wanted for wanted, found in counts.values()):
        return Agreement(verdict="identical")
    far = [
        _said(name, *pair)
        for name, pair in counts.items()
        if abs(pair[1] - pair[0]) > TOLERANCES[name] * pair[0]
    ]
    p = sign_flip_p((after == labels)[None], (before == labels)[None])
    if p < LEVEL:
        far.append(
            f"{int((after == labels).sum())} correct, recorded are {old.correct} (p = {p:.2g})"
        )
    if far:
        return Agreement(verdict="different", reason="; ".join(far))
    near = [_said(name, *pair) for name, pair in counts.items() if pair[0] != pair[1]]
    return Agreement(
        verdict="within tolerance",
        reason="; ".join(
            [*near, *([f"{changed} of {len(labels)} predictions"] if changed else [])]
        ),
    )


def _said(name: str, recorded: float, found: float) -> str:
    return f"{name} {found:.0f}, recorded {recorded:.0f}"
