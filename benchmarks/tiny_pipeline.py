"""The whole pipeline on a tiny experiment, as a user would run it: in a copy of this checkout, through DVC, with the example of CONTRIBUTING.md.

Run it as `make tiny`. Two models, one epoch, a handful of points. Checks that a second run does nothing, that changing one setting or adding a model runs
only what it must, and that the newcomer's method of CONTRIBUTING.md becomes a row of the table.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.testbed.checkout import CHAINS, METHODS, ROOT, copy_checkout, shrink
from leaderboard.records.params import load_params


def change(folder: Path, edit: Any) -> None:
    """Apply `edit` to the folder's params."""
    file = folder / "params.yaml"
    params = yaml.safe_load(file.read_text())
    edit(params)
    file.write_text(yaml.safe_dump(params, sort_keys=False))


def repro(folder: Path) -> tuple[list[str], str]:
    """Reproduce the track; return the stages that ran, and the output."""
    done = subprocess.run(
        ["dvc", "repro", "leaderboard@digits"], cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(folder)}
    )
    print(done.stdout, done.stderr[-2000:] if done.returncode else "", flush=True)
    if done.returncode:
        sys.exit("error: dvc repro failed, see above")
    return re.findall(r"Running stage '(.*)'", done.stdout), done.stdout


def expect(what: str, found: object, wanted: object) -> None:
    """Stop with one line if `found` is not what was wanted."""
    if found != wanted:
        sys.exit(f"error: {what}: expected {wanted}, found {found}")
    print(f"ok: {what}", flush=True)


def main() -> None:
    """Run and re-run the tiny pipeline."""
    after = ["measure@digits-cpu", "leaderboard@digits"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_checkout(folder)
        change(folder, shrink)
        ran, _ = repro(folder)
        stages = ["code", "train@digits", *(f"compress@digits-{name}" for name in METHODS), *(f"chain@digits-{name}" for name in CHAINS), *after]
        expect("a first run runs every stage", sorted(ran), sorted(stages))
        expect("a second run does nothing", repro(folder)[0], [])

        change(folder, lambda params: params["methods"]["rtn"].update(settings=[{"bits": 4}, {"bits": 3}]))
        ran, output = repro(folder)
        expect("a new setting runs its method only", ran, ["compress@digits-rtn", *after])
        expect("and only its new points", "digits rtn: 2 run, 2 stood" in output, True)

        mixer = yaml.safe_load((ROOT / "params.yaml").read_text())["tracks"]["digits"]["models"]["mixer"]
        change(folder, lambda params: params["tracks"]["digits"]["models"].update(mixer=mixer))
        _, output = repro(folder)
        expect("a new model runs only its own points", "digits rtn: 2 run, 4 stood" in output and "digits magnitude: 1 run, 2 stood" in output, True)

        example = re.search(r"```python\n# methods/(\w+)\.py\n(.*?)```", (folder / "CONTRIBUTING.md").read_text(), re.DOTALL)
        assert example is not None
        name, source = example.groups()
        (folder / "methods" / f"{name}.py").write_text(source)
        change(folder, lambda params: params["methods"].update({name: {"settings": [{"sparsity": 0.5}]}}))
        expect("the method of CONTRIBUTING.md runs alone", sorted(repro(folder)[0]), sorted(["code", f"compress@digits-{name}", *after]))
        rows = (folder / "results" / load_params(folder / "params.yaml").version / "tables" / "digits" / "cpu.csv").read_text().splitlines()
        expect("and becomes three rows of the table", sum(f"{name}," in row and ",ok," in f"{row}," for row in rows), 3)
        subprocess.run([sys.executable, "-m", "harness", "check", "results"], cwd=folder, check=True, env={**os.environ, "PYTHONPATH": str(folder)})


if __name__ == "__main__":
    main()
