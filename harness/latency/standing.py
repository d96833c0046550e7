"""Whether what this machine measured before is what it would measure again."""

from __future__ import annotations

import hashlib
import json

from harness.latency import machine, runtimes
from harness.latency.plan import TimingPlan, plan_of
from harness.run.fingerprint import sources
from harness.run.paths import Paths
from leaderboard.records import files
from leaderboard.records.params import HardwareParams, Params

KEY = "measured_of"  # in a latency file


def key_of(profile: HardwareParams, plan: TimingPlan) -> str:
    """Return the sha256 of what a measurement rests on: points, profile and code."""
    content = {
        "timed": [{**point.name, "control": point.control} for point in plan.timed],
        "same program": plan.same_program,
        "profile": profile.model_dump(mode="json"),
        "code": sources().hash("harness.latency.benchmark"),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def stands(params: Params, paths: Paths, track: str, hardware: str) -> bool:
    """Say whether this machine has measured all that the profile asks for, without a
    failure.
    """
    profile = params.profile(hardware)
    if runtimes.missing(profile) is not None:
        return False
    name = machine.fingerprint(profile)["fingerprint"]
    file = paths.latency(track, hardware) / f"{name}.json"
    if not file.exists():
        return False
    before = files.read_json(file)
    wanted = key_of(profile, plan_of(params, paths, track, profile))
    return before.get(KEY) == wanted and not before.get("failed")
