"""Faults around DVC and make that are too slow for the tests: each must be one clear
refusal, or pass by, and the next run must end as if nothing had been.

Example: python -m tools.faults
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import typer

from tools import kill_anywhere as kill

ROOT = Path(__file__).parent.parent
STUB = """#!/bin/sh
# stands for python3 where the Makefile makes its environment: a call takes a while and is noted
sleep ${STUB_SECONDS:-0}
[ "$2" = venv ] && mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
echo "$@" >> calls
"""


def dvc(folder: Path) -> tuple[int, str]:
    """Run `dvc repro` to its end; return its exit code and what it printed."""
    process = kill.start(folder, kill.WITH_DVC)
    output, _ = process.communicate(timeout=kill.LIMIT)
    return process.returncode, output


def a_damaged_lock_is_refused_and_its_copy_serves(folder: Path) -> None:
    """Cut dvc.lock in the middle of an entry."""
    lock = folder / "dvc.lock"
    whole = lock.read_bytes()
    lock.write_bytes(whole[: len(whole) // 2] + b"\n  : [")
    code, output = dvc(folder)
    assert code != 0 and "dvc.lock" in output, output[-1000:]
    lock.write_bytes(whole)
    assert dvc(folder)[0] == 0


def a_lost_lock_runs_no_point_again(folder: Path) -> None:
    """Delete dvc.lock."""
    before = kill.finished(folder)
    (folder / "dvc.lock").unlink()
    code, output = dvc(folder)
    assert code == 0, output[-1000:]
    kill.unchanged(folder, before)


def damaged_predictions_are_made_again(folder: Path) -> None:
    """Cut the predictions of a method."""
    (file,) = folder.glob("results/v1/digits/predictions/rtn.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    assert dvc(folder)[0] == 0 and file.read_bytes() == whole


def a_damaged_artefact_is_made_again(folder: Path) -> None:
    """Cut the weights of a point."""
    (file,) = folder.glob("artefacts/digits/points/rtn/mixer_bits=4_seed=0/weights.safetensors")
    whole = file.read_bytes()
    file.unlink()  # DVC may have linked it to its cache
    file.write_bytes(whole[:-9])
    assert dvc(folder)[0] == 0 and file.read_bytes() == whole


def two_at_once_do_not_mix(folder: Path) -> None:
    """Start `dvc repro` twice after a method's artefacts are lost: one waits or is
    refused by name, and what comes out is whole.
    """
    wanted = kill.outcome(folder)
    shutil.rmtree(folder / "artefacts" / "digits" / "points" / "magnitude")
    both = [kill.start(folder, kill.WITH_DVC) for _ in range(2)]
    ended = [(process.communicate(timeout=kill.LIMIT)[0], process.returncode) for process in both]
    assert 0 in [code for _, code in ended], ended
    assert all(code == 0 or "lock" in output for output, code in ended), ended
    assert dvc(folder)[0] == 0 and kill.outcome(folder) == wanted


def an_interrupted_install_is_done_again(folder: Path) -> None:
    """Kill `make` while it makes its environment, with a stand-in for Python, and run
    it again.
    """
    place = folder / "installing"
    place.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, place)
    (stub := place / "stub").write_text(STUB)
    stub.chmod(0o755)
    command = ["make", ".venv/ready", f"PYTHON={stub}"]
    process = subprocess.Popen(
        command,
        cwd=place,
        env=os.environ | {"STUB_SECONDS": "2"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    time.sleep(3)  # the environment is there, the install has begun
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (place / ".venv" / "bin" / "python").exists() and not (
        place / ".venv" / "ready"
    ).exists()
    subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
    assert (place / ".venv" / "ready").exists() and "pip install" in (place / "calls").read_text()


FAULTS: list[Callable[[Path], None]] = [
    a_damaged_lock_is_refused_and_its_copy_serves,
    a_lost_lock_runs_no_point_again,
    damaged_predictions_are_made_again,
    a_damaged_artefact_is_made_again,
    two_at_once_do_not_mix,
    an_interrupted_install_is_done_again,
]


def main() -> None:
    """Try every fault on a tiny pipeline in a copy of this checkout; exit 1 if one is
    not met as it should.

    Example: python -m tools.faults
    """
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kill.clone(folder)
        kill.finish(folder, kill.WITH_DVC)
        for fault in FAULTS:
            try:
                fault(folder)
                print(f"ok: {fault.__name__.replace('_', ' ')}", flush=True)
            except AssertionError as error:
                failed += 1
                print(f"error: {fault.__name__.replace('_', ' ')}: {str(error)[:1000]}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
