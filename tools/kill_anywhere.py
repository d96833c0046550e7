"""Kill a small pipeline again and again with SIGKILL, whole or one worker of it, and
show that nothing is lost, run twice or different for it.

Each round makes an experiment in a folder of its own, kills its run at several random
moments, starting it again after each, and then lets it end. After every start, what had
been finished must lie there untouched; at the end, records, predictions, weights and
tables must be byte for byte those of a run that nobody disturbed, but for what they
took.

Example: python -m tools.kill_anywhere --kills 100 --seed 3
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer
import yaml

from benchmarks.testbed.checkout import copy_checkout
from benchmarks.testbed.tiny_project import PARAMS
from leaderboard.records.outline import read_outline
from leaderboard.tables.build import build

ROOT = Path(__file__).parent.parent
SPARSITIES = [{"sparsity": round(0.1 * step, 1)} for step in range(1, 9)]
METHODS = {
    "dense": {"settings": [{}]},
    "magnitude": {"settings": SPARSITIES},
    "random_pruning": {"settings": SPARSITIES[:2]},
    "rtn": {"settings": [{"bits": bits} for bits in (2, 3, 4, 8)]},
}
LIMIT = 300.0  # seconds for a run to get to its moment, or to end
ALONE = "python -m shrinkmark run digits && python -m shrinkmark tables --no-digest"
WITH_DVC = "dvc repro leaderboard@digits"


@dataclass(frozen=True)
class Moment:
    """When to kill: so many seconds after so many more points are finished; and
    whom.
    """

    points: int
    seconds: float
    one_worker: bool


def experiment(folder: Path) -> None:
    """Write the params of an experiment of fifteen points into `folder`, which times
    nothing.
    """
    (folder / "params.yaml").write_text(
        yaml.safe_dump(PARAMS | {"methods": METHODS, "hardware": {}}, sort_keys=False)
    )


def clone(folder: Path) -> None:
    """Copy this checkout into `folder`, for DVC, with the params of the experiment."""
    copy_checkout(folder)
    experiment(folder)
    content = yaml.safe_load((folder / "params.yaml").read_text())
    content |= {
        "hardware": PARAMS["hardware"],
        "hardware_on_request": {"cpu_ort": PARAMS["hardware"]["cpu"] | {"runtime": "onnxruntime"}},
    }
    # DVC's matrix wants one of each
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def start(folder: Path, command: str) -> subprocess.Popen[str]:
    """Start the pipeline in a process group of its own."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST")
    } | {"PYTHONPATH": path}
    return subprocess.Popen(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finished(folder: Path) -> dict[str, bytes]:
    """Return the records of the points that are finished and did not fail, by their
    folder, each with the note of what the point took, if there is one.
    """
    found, home = {}, folder / "artefacts" / "digits"
    for path in (home / "points").glob("*/[!.]*/record.json"):
        content, note = (
            path.read_bytes(),
            home
            / "spent"
            / path.parent.relative_to(home / "points").with_name(f"{path.parent.name}.json"),
        )
        if json.loads(content)["status"] != "failed":
            found[path.parent.relative_to(folder).as_posix()] = content + (
                note.read_bytes() if note.exists() else b""
            )
    return found


def disturb(folder: Path, command: str, moment: Moment, generator: random.Random) -> bool:
    """Run the pipeline until `moment` and kill it; say whether it still ran. What had
    been finished before must not be touched.
    """
    before = finished(folder)
    process = start(folder, command)
    deadline = time.monotonic() + LIMIT
    while (
        process.poll() is None
        and len(finished(folder)) < len(before) + moment.points
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    try:
        process.wait(moment.seconds)
    except subprocess.TimeoutExpired:
        killed = _kill_worker(process, generator) if moment.one_worker else _kill_all(process)
    else:
        killed = False
    process.communicate(timeout=LIMIT)
    unchanged(folder, before)
    return killed


def _kill_all(process: subprocess.Popen[str]) -> bool:
    """Kill everything at once and wait until the machine's first process has buried the
    orphans: to DVC, a dead process that is still listed holds its lock.
    """
    orphans = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    psutil.wait_procs(orphans, LIMIT)
    return True


def _kill_worker(process: subprocess.Popen[str], generator: random.Random) -> bool:
    """Kill one process of the deepest level, which is a worker once there are any; say
    whether there was one.
    """
    try:
        below = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if not child.children()
        ]
        if below:
            generator.choice(sorted(below, key=lambda child: child.pid)).kill()
        return bool(below)
    except psutil.NoSuchProcess:  # it has ended by itself meanwhile
        return False


def unchanged(folder: Path, before: dict[str, bytes]) -> None:
    """Raise AssertionError unless what was finished is still what it was: a point run
    again would have taken other seconds.
    """
    after = finished(folder)
    again = [name for name, content in before.items() if after.get(name) != content]
    assert not again, f"run again though finished: {again}"


def finish(folder: Path, command: str) -> str:
    """Run the pipeline to its end and return what it printed; raise AssertionError if
    it fails or runs a finished point again.
    """
    before = finished(folder)
    process = start(folder, command)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, output[-2000:]
    unchanged(folder, before)
    return output


def outcome(folder: Path) -> dict[str, str]:
    """Return the sha256 of everything that must be the same whoever was killed, by
    name: records, predictions, programs, weights, tables of them.
    """
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "results"
        shutil.copytree(
            folder / "results", copy, ignore=shutil.ignore_patterns("tables", "latency", "costs")
        )
        about = read_outline(folder / "params.yaml")
        build(copy, about.chosen_version(None), [], None, about)
        files = {
            path.relative_to(temporary).as_posix(): path
            for path in copy.rglob("*")
            if path.is_file()
        }
        made = [
            path
            for part in ("data", "dense", "points")
            for path in (folder / "artefacts" / "digits" / part).rglob("*")
            if path.is_file()
        ]
        files |= {path.relative_to(folder).as_posix(): path for path in made}
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in sorted(files.items())
        }


def leftovers(folder: Path) -> list[str]:
    """Return the half-written files and folders that lie about."""
    return [
        path.relative_to(folder).as_posix()
        for kind in ("artefacts", "results")
        for path in (folder / kind).rglob(".*.tmp")
    ]


def a_round(
    folder: Path,
    command: str,
    moments: list[Moment],
    generator: random.Random,
    wanted: dict[str, str],
) -> int:
    """Disturb the pipeline in `folder` at every moment, let it end, compare; return how
    many kills met a running process.
    """
    killed = sum(disturb(folder, command, moment, generator) for moment in moments)
    finish(folder, command)
    found = outcome(folder)
    differing = sorted(
        name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
    )
    assert not differing, f"differs from the undisturbed run: {differing}"
    assert not leftovers(folder), f"left behind: {leftovers(folder)}"
    return killed


def drawn(generator: random.Random) -> Moment:
    """Draw a moment: half of them before the first new point (imports, data, training,
    collecting), a third of one worker.
    """
    points = 0 if generator.random() < 0.5 else generator.randint(1, 6)
    return Moment(points, generator.uniform(0, 8 if points == 0 else 1), generator.random() < 1 / 3)


def main(
    kills: Annotated[int, typer.Option(min=1, help="how many processes to kill")] = 100,
    in_a_row: Annotated[
        int, typer.Option(min=1, help="kills of one experiment before it may end")
    ] = 4,
    seed: Annotated[int, typer.Option(help="of the moments")] = 0,
    dvc: Annotated[
        bool,
        typer.Option(
            "--dvc", help="kill `dvc repro` in a copy of this checkout instead of `harness run`"
        ),
    ] = False,
) -> None:
    """Kill at random moments; exit 1 with one line at the first thing lost, run twice
    or different.

    Example: python -m tools.kill_anywhere --kills 100 --seed 3
    """
    generator, prepare, command = (
        random.Random(seed),
        clone if dvc else experiment,
        WITH_DVC if dvc else ALONE,
    )
    print(f"seed {seed}: {command}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        (reference := Path(temporary) / "undisturbed").mkdir()
        prepare(reference)
        finish(reference, command)
        wanted, done = outcome(reference), 0
        while done < kills:
            (folder := Path(temporary) / "disturbed").mkdir()
            prepare(folder)
            moments = [drawn(generator) for _ in range(in_a_row)]
            try:
                done += a_round(folder, command, moments, generator, wanted)
            except AssertionError as error:
                sys.exit(f"error: after {moments}: {error}")
            shutil.rmtree(folder)
            print(
                f"{done} kills: {len(wanted)} files as in the undisturbed run, no finished point "
                "run again",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
