"""What is timed of a track under a hardware profile, and what need not be.

Masked points get no latency run, but where a runtime has a kernel for their zeros. Of a
row's seeds the first is measured, and any other whose counted MACs differ from the
first one's. A program that is timed is not timed again with other weights, unless what
it does depends on the image, or a kernel of the runtime depends on its weights
(integers, 2:4 zeros). One of the points that run dense's own program with other weights
is timed all the same, as a control. A profile may ask for the rows of some realisations
alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from harness.latency import runtimes
from harness.latency.runtimes import Runtime
from harness.point import store
from harness.run.paths import Paths
from leaderboard.records import files
from leaderboard.records.params import HardwareParams, Params
from leaderboard.records.results import read_record
from leaderboard.records.schema import DENSE, Measured, MethodInfo, MethodPoints

BRANCH = "torch.ops.higher_order.cond"  # in a program that branches


@dataclass(frozen=True)
class TimedPoint:
    """A point whose artefact is timed, against dense of the same model in the folder
    `dense`; control: although it runs dense's own program.
    """

    method: str
    point: str
    model: str
    setting: dict[str, Any]
    seed: int
    fingerprint: str
    folder: Path
    dense: Path
    control: bool = False

    @property
    def name(self) -> dict[str, str]:
        """Return what tells the point from all others of its track."""
        return {"method": self.method, "id": self.point, "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class TimingPlan:
    """The points that are timed, and those that need not be, because they run the
    program of one that is (of dense, if they can).
    """

    timed: list[TimedPoint]
    same_program: list[dict[str, Any]]


def plan_of(params: Params, paths: Paths, track: str, profile: HardwareParams) -> TimingPlan:
    """Return what is to be timed, model by model, dense (the A/A control) first, and
    what is not.
    """
    runtime = runtimes.of(profile)
    timed, same_program = [], []
    first: dict[str, TimedPoint] = {}
    for point in _asked(params, paths, track, profile, runtime):
        twin = first.setdefault(program_of(point, runtime), point)
        if twin is point:
            timed.append(point)
        elif twin.method == DENSE and not any(other.control for other in timed):
            timed.append(replace(point, control=True))
        else:
            same_program.append({**point.name, "timed": twin.name})
    order = list(params.track(track).models)
    return TimingPlan(
        sorted(timed, key=lambda point: (order.index(point.model), point.method != DENSE)),
        same_program,
    )


def _asked(
    params: Params, paths: Paths, track: str, profile: HardwareParams, runtime: Runtime
) -> Iterator[TimedPoint]:
    """Yield the points whose rows the profile times, those of dense first: of each row
    the first seed, and any other that costs otherwise.
    """
    for method in [DENSE, *(name for name in params.plans if name != DENSE)]:
        content = read_record(paths.points(track, method), MethodPoints)
        if not _is_timed(content.method, profile, runtime):
            continue
        measured: dict[str, int] = {}
        for record in content.points:
            row = f"{record.model} {record.setting}"
            if isinstance(record, Measured) and measured.get(row) != record.macs:
                measured.setdefault(row, record.macs)
                yield _point(params, paths, track, method, record)


def _is_timed(method: MethodInfo, profile: HardwareParams, runtime: Runtime) -> bool:
    """Say whether rows of a method are timed: masked ones where the runtime has a
    kernel for their zeros, others that the profile asks for.
    """
    if method.name == DENSE:
        return True
    if method.realisation == "masked" and runtime.zeros is None:
        return False
    return profile.realisations is None or not set(profile.realisations).isdisjoint(
        method.realisation.split("+")
    )


def _point(params: Params, paths: Paths, track: str, method: str, record: Measured) -> TimedPoint:
    dense = paths.artefacts(track, DENSE) / f"{record.model}_seed={params.track(track).seeds[0]}"
    about = (record.id, record.model, dict(record.setting), record.seed, record.fingerprint)
    return TimedPoint(method, *about, paths.artefacts(track, method) / record.id, dense)


def program_of(point: TimedPoint, runtime: Runtime) -> str:
    """Return what two points share if one timing is right for both: the model and the
    graph, or nothing but itself (see the module).
    """
    text = graph(point.folder)
    operators = frozenset(targets(json.loads(text)))
    if BRANCH in operators or runtime.alone(point.folder, operators):
        return str(point.folder)
    return f"{point.model} {hashlib.sha256(text).hexdigest()}"


def targets(text: Any) -> Iterator[str]:
    """Yield the operator of every node in the parsed text of a program, those in
    branches too.
    """
    if isinstance(text, dict) and isinstance(text.get("target"), str):
        yield text["target"]
    for part in text.values() if isinstance(text, dict) else text if isinstance(text, list) else ():
        yield from targets(part)


def graph(folder: Path) -> bytes:
    """Return the text of an artefact's program: its operators with all their arguments,
    and no weights; raise UserError if it has none.
    """
    with files.reading(folder), ZipFile(folder / store.PROGRAM) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/models/model.json"))
        return archive.read(name)
