"""shrinkmark away from a checkout: as a built wheel in an empty folder, and in one that holds what has the names of our packages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = (
    "harness",
    "leaderboard",
    "methods",
    "params.yaml",
    "pyproject.toml",
    "shrinkmark.py",
    "README.md",
    "LICENSE",
)
RTN = ("digits", "--rehearse", "--method", "rtn", "--model", "vit")


def run(*command, cwd, path):
    env = os.environ | {"PYTHONPATH": str(path)}
    return subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, env=env)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that the wheel of this code was installed into, without what it depends on."""
    home = tmp_path_factory.mktemp("installed")
    (home / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, home / "source" / name)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    wheel = run(*pip, "wheel", "--no-deps", "--wheel-dir", home, home / "source", cwd=home, path="")
    assert wheel.returncode == 0, wheel.stderr
    (file,) = home.glob("*.whl")
    done = run(*pip, "install", "--no-deps", "--target", home / "site", file, cwd=home, path="")
    assert done.returncode == 0, done.stderr
    return home / "site"


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_folder_with_the_defaults_that_it_carries(site, tmp_path):
    command = site / "bin" / "shrinkmark"
    assert "217 points" in run(command, "check", "params", cwd=tmp_path, path=site).stdout
    done = run(command, "run", *RTN, cwd=tmp_path, path=site)
    assert done.returncode == 0, done.stderr
    assert (
        "digits rtn: 1 ok" in done.stdout
        and "digits on cpu: latency measured, 0 failed" in done.stdout
    )
    done = run(
        command, "train", "digits", cwd=tmp_path, path=site
    )  # the whole track's models, at the package's recipe
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artefacts", "results"]


@pytest.mark.slow
def test_a_folder_that_holds_packages_of_our_names_does_not_get_in_the_way(site, tmp_path):
    for name in ("methods", "harness"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(
            "raise RuntimeError('the user is heard where nobody asked')\n"
        )
    (tmp_path / "leaderboard.py").write_text("raise RuntimeError\n")
    done = run(site / "bin" / "shrinkmark", "run", *RTN, cwd=tmp_path, path=site)
    assert done.returncode == 0, done.stderr
    assert "digits rtn: 1 ok" in done.stdout


@pytest.mark.parametrize("hiding", ["methods/__init__.py", "harness.py", "leaderboard/__init__.py"])
def test_what_would_be_imported_in_place_of_our_packages_is_named_in_one_line(tmp_path, hiding):
    (tmp_path / hiding).parent.mkdir(exist_ok=True)
    (tmp_path / hiding).write_text("")
    name = Path(hiding).parts[0].removesuffix(".py")
    path = f"{tmp_path}{os.pathsep}{ROOT}"  # as a script and `python -m` put their folder first
    line = f"shrinkmark's package '{name}' is hidden by {tmp_path / Path(hiding).parts[0]}"
    command = run(sys.executable, "-m", "shrinkmark", "--help", cwd=tmp_path, path=path)
    assert command.returncode == 2 and command.stdout == ""
    assert command.stderr.startswith(f"error: {line}") and command.stderr.count("\n") == 1
    door = run(sys.executable, "-c", "import shrinkmark", cwd=tmp_path, path=path)
    assert f"ImportError: {line}" in door.stderr


def test_nothing_is_written_into_the_package_where_there_is_no_experiment(tmp_path):
    done = run(sys.executable, "-m", "shrinkmark", "new", "mine", cwd=tmp_path, path=ROOT)
    assert done.returncode == 2
    assert done.stderr == "error: params.yaml not found: run this in a checkout of shrinkmark\n"
