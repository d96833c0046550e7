"""The whole pipeline on a tiny experiment, as a user would run it: in a copy of this
checkout, through DVC, with the example of CONTRIBUTING.md.

Run it as `make tiny`. Two models, one epoch, a handful of points. Checks that a second
run does nothing, that changing one setting or adding a model runs only the points it
must, that the newcomer's method of CONTRIBUTING.md becomes a row of the table, that a
point that failed is tried again by the next run, that a track of its own that fails
leaves the rest alone, and that a fresh clone reproduces the committed records byte for
byte.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.testbed.checkout import ROOT, copy_checkout, shrink
from leaderboard.records.params import load_params

STAGES = ["train@digits", "compress@digits", "measure@digits-cpu", "leaderboard@digits", "site"]
BROKEN = """stages:
  compress:
    wdir: ../..
    cmd: python -c 'raise SystemExit(3)'
    outs:
      - results/v3/broken/points:
          cache: false
"""


def change(folder: Path, edit: Any) -> None:
    """Apply `edit` to the folder's params."""
    file = folder / "params.yaml"
    params = yaml.safe_load(file.read_text())
    edit(params)
    file.write_text(yaml.safe_dump(params, sort_keys=False))


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` and show what it says."""
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    print(done.stdout, done.stderr[-2000:] if done.returncode else "", flush=True)
    return done


def repro(folder: Path) -> tuple[list[str], str]:
    """Reproduce the default track; return the stages that ran, and the output."""
    done = run(folder, "dvc", "repro")
    if done.returncode:
        sys.exit("error: dvc repro failed, see above")
    return re.findall(r"Running stage '(.*)'", done.stdout), done.stdout


def expect(what: str, found: object, wanted: object) -> None:
    """Stop with one line if `found` is not what was wanted."""
    if found != wanted:
        sys.exit(f"error: {what}: expected {wanted}, found {found}")
    print(f"ok: {what}", flush=True)


def rows_of(folder: Path, method: str) -> int:
    """Return how many rows of a method the table has that are ok."""
    version = load_params(folder / "params.yaml").version
    rows = (folder / "results" / version / "digits" / "tables" / "cpu.csv").read_text().splitlines()
    return sum(f"{method}," in row and ",ok," in f"{row}," for row in rows)


def follow_changes(folder: Path) -> None:
    """Change one thing after another, and see that only what it touches is run."""
    change(
        folder, lambda params: params["methods"]["rtn"].update(settings=[{"bits": 4}, {"bits": 3}])
    )
    ran, output = repro(folder)
    expect("a new setting runs no training", ran, STAGES[1:])
    expect("and only its new points", "digits: 2 run, 10 stood" in output, True)

    mixer = yaml.safe_load((ROOT / "params.yaml").read_text())["tracks"]["digits"]["models"][
        "mixer"
    ]
    change(folder, lambda params: params["tracks"]["digits"]["models"].update(mixer=mixer))
    _, output = repro(folder)
    expect("a new model runs only its own points", "digits: 6 run, 12 stood" in output, True)

    example = re.search(
        r"```python\n# methods/(\w+)\.py\n(.*?)```",
        (folder / "CONTRIBUTING.md").read_text(),
        re.DOTALL,
    )
    assert example is not None
    name, source = example.groups()
    (folder / "methods" / f"{name}.py").write_text(source)
    change(
        folder, lambda params: params["methods"].update({name: {"settings": [{"sparsity": 0.5}]}})
    )
    _, output = repro(folder)
    expect("the method of CONTRIBUTING.md runs alone", "digits: 3 run, 18 stood" in output, True)
    expect("and becomes three rows of the table", rows_of(folder, name), 3)


def fail_and_go_on(folder: Path) -> None:
    """Have a method fail: its stage fails after all others were run, the table shows
    it, and the next run tries it again.
    """
    file = folder / "methods" / "fails.py"
    source = (
        (folder / "methods" / "magnitude.py").read_text().replace("class Magnitude", "class Fails")
    )
    file.write_text(
        source.replace(
            "        weights = ", '        raise RuntimeError("not today")\n        weights = '
        )
    )
    change(folder, lambda params: params["methods"].update(fails={"settings": [{"sparsity": 0.5}]}))
    failed = run(folder, "dvc", "repro")
    expect(
        "a failed point fails its stage, after all others",
        (failed.returncode != 0, "3 failed" in failed.stdout),
        (True, True),
    )
    shown = run(folder, sys.executable, "-m", "shrinkmark", "show", "--track", "digits")
    expect("and the table is there all the same", shown.returncode, 0)
    file.write_text(source)
    _, output = repro(folder)
    expect(
        "the next run tries it again, without --force",
        "digits: 3 run" in output and "0 failed" in output,
        True,
    )


def main() -> None:
    """Run and re-run the tiny pipeline."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "first"
        folder.mkdir()
        copy_checkout(folder)
        change(folder, shrink)
        expect("a first run runs every stage", repro(folder)[0], STAGES)
        expect("a second run does nothing", repro(folder)[0], [])
        follow_changes(folder)
        fail_and_go_on(folder)
        run(folder, sys.executable, "-m", "shrinkmark", "check", "results").check_returncode()

        (folder / "tracks" / "broken").mkdir(parents=True)
        (folder / "tracks" / "broken" / "track.yaml").write_text("base: digits\nmethods: {}\n")
        (folder / "tracks" / "broken" / "dvc.yaml").write_text(BROKEN)
        expect(
            "a track of its own that fails",
            run(folder, "dvc", "repro", "tracks/broken/dvc.yaml").returncode != 0,
            True,
        )
        expect("leaves the rest alone", repro(folder)[0], [])
        shutil.rmtree(folder / "tracks" / "broken")

        for command in (
            ["add", "--all"],
            [
                "-c",
                "user.name=x",
                "-c",
                "user.email=x@x",
                "commit",
                "--quiet",
                "--message",
                "results",
            ],
        ):
            subprocess.run(["git", *command], cwd=folder, check=True)
        again = Path(temporary) / "again"
        subprocess.run(["git", "clone", "--quiet", str(folder), str(again)], check=True)
        repro(again)
        said = run(again, sys.executable, "-m", "shrinkmark", "check", "results")
        expect(
            "a fresh clone reproduces the records byte for byte",
            "byte for byte" in said.stdout and said.returncode == 0,
            True,
        )
        status = subprocess.run(
            ["git", "status", "--porcelain"], cwd=again, capture_output=True, text=True, check=True
        ).stdout
        changed = {line[3:] for line in status.splitlines()}
        of_the_machine = r"results/v3/digits/(costs|latency|tables)/.*"
        allowed = re.compile(rf"{of_the_machine}|docs/results\.md|README\.md|dvc\.lock")
        expect(
            "and changes nothing but what belongs to the machine and what is made of it",
            {name for name in changed if not allowed.fullmatch(name)},
            set(),
        )


if __name__ == "__main__":
    main()
