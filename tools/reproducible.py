"""Run a small experiment again under other circumstances, and say whether every
accuracy, prediction, byte and MAC comes out the same.

A second clean clone, one worker in place of two, half of the points deleted and made
again: all of it byte for byte the same, records and programs too. Another version of
Python gets an environment of its own from the same constraints, trains dense anew and
runs every point again; what differs is said point by point, and by how much. With
--track it is the committed records of a real track that are run again, by this Python
or another.

Example: python -m tools.reproducible --python python3.12
Example: python -m tools.reproducible --track digits --method magnitude --method taylor
--python python3.12
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
import yaml

from benchmarks.testbed.checkout import ROOT, copy_checkout, shrink
from harness.audit.rerun import verdicts
from harness.run.paths import Paths
from leaderboard.exchange.agreement import Verification
from leaderboard.records.params import load_params
from tools import kill_anywhere as kill

# beside those of the tiny pipeline: what draws at random, solves, trains, removes
# channels
METHODS = {
    "random_pruning": [{"sparsity": 0.5}],
    "gptq": [{"bits": 3}],
    "finetune_only": [{"share": 1.0}],
    "taylor": [{"macs": 0.5}],
    "svd": [{"rho": 0.5}],
    "int8_static": [{}],
}
VERSION, TRACK = "v1", "digits"


def experiment(folder: Path, workers: int) -> Path:
    """Copy this checkout into `folder`, with params of two models trained for an epoch,
    few points, and nothing timed; return `folder`.
    """
    copy_checkout(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    shrink(params)
    params["methods"] |= {name: {"settings": settings} for name, settings in METHODS.items()}
    params |= {"version": VERSION, "hardware": {}, "run": params["run"] | {"workers": workers}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def same(circumstances: str, folder: Path, wanted: dict[str, str]) -> None:
    """End with a line that names the files in which `folder` differs from what was
    wanted, or say that none does.
    """
    found = kill.outcome(folder)
    differing = sorted(
        name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
    )
    if differing:
        sys.exit(
            f"error: {circumstances}: {len(differing)} of {len(wanted)} files differ: "
            f"{', '.join(differing[:5])}"
        )
    print(f"ok: {circumstances}: {len(wanted)} files the same, byte for byte", flush=True)


def again_here(root: Path, seed: int) -> Path:
    """Run the experiment under every circumstance below `root`; return the folder of
    its first run.
    """
    first = experiment(root / "first", 2)
    kill.finish(first, kill.ALONE)
    wanted = kill.outcome(first)
    for circumstances, workers in (("another clean clone", 2), ("one worker in place of two", 1)):
        folder = experiment(root / "again", workers)
        kill.finish(folder, kill.ALONE)
        same(circumstances, folder, wanted)
        shutil.rmtree(folder)
    points = sorted(kill.finished(first))
    gone = random.Random(seed).sample(points, len(points) // 2)
    for name in gone:
        shutil.rmtree(first / name)
    kill.finish(first, kill.ALONE)
    same(f"{len(gone)} of {len(points)} points deleted, the others not run again", first, wanted)
    return first


def environment(python: str, folder: Path, clone: Path) -> Path:
    """Return the Python of the environment in `folder`, made by `python` with what
    constraints.txt says unless it is there.
    """
    own = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        install = [
            str(own),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--constraint",
            str(clone / "constraints.txt"),
        ]
        subprocess.run([*install, str(clone)], check=True)
        (folder / "ready").touch()
    return own


def again_by(python: Path, clone: Path, records: Path, options: list[str]) -> bool:
    """Run the points of `records` again by another Python and print what differs; say
    whether nothing differs by more than the tolerances.
    """
    version = subprocess.run(
        [str(python), "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    report = clone / "report.json"
    command = [
        str(python),
        "-m",
        "shrinkmark",
        "rerun",
        options[0],
        "--records",
        str(records),
        "--report",
        str(report),
        "--share",
        "1",
        *options[1:],
    ]
    done = subprocess.run(
        command, cwd=clone, env=os.environ | {"PYTHONPATH": str(clone)}, stdout=subprocess.DEVNULL
    )
    if done.returncode not in (0, 1) or not report.exists():
        sys.exit(
            f"error: {version}: `harness rerun` ended with exit code {done.returncode}, see above"
        )
    found = Verification.model_validate_json(report.read_bytes())
    equal = sum(found.dense.values())
    print(f"{version}: {equal} of {len(found.dense)} dense models the same to the bit", flush=True)
    for line in verdicts(found):
        if not line.endswith(": identical"):
            print(f"{version}: {line}", flush=True)
    return all(point.verdict != "different" for point in found.points)


def main(
    python: Annotated[
        str | None, typer.Option(help="another Python to run it with, e.g. python3.12")
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(
            help="run committed points of this track again, in place of the small experiment"
        ),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="with --track: only this method (may be given again)")
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            help="the folder of --python's environment, to keep it; made if it is not there"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="of the points that are deleted")] = 0,
) -> None:
    """Run an experiment again and say what came out otherwise; exit 1 if anything did,
    or, by another Python, by more than the tolerances.

    Example: python -m tools.reproducible --python python3.12
    """
    if python is not None and shutil.which(python) is None:
        raise typer.BadParameter(
            f"no Python called '{python}' is found here: install it or name another"
        )
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        if track is None:
            try:
                clone = again_here(root, seed)
            except AssertionError as error:
                sys.exit(f"error: {error}")
            records, options = Paths(clone, VERSION).records(TRACK), [TRACK]
        else:
            copy_checkout(clone := root / "clone")
            records = Paths(ROOT, load_params(ROOT / "params.yaml").version).records(track)
            options = [track, *(part for name in method or [] for part in ("--method", name))]
        if python is None and track is None:
            return
        chosen = (
            Path(sys.executable)
            if python is None
            else environment(python, into or root / "environment", clone)
        )
        sys.exit(0 if again_by(chosen, clone, records, options) else 1)


if __name__ == "__main__":
    typer.run(main)
