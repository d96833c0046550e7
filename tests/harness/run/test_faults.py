"""What goes wrong outside of us (the disk, the clock, a worker) ends in a clear line or
a failed row, harms no neighbour, and a second run mends it.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from harness.run.compress import compress
from harness.run.paths import Paths
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import load_params


def points(paths, method):
    return files.read_json(paths.points("digits", method))["points"]


def mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def disk(tiny_project, tmp_path):
    """The tiny project on a disk of its own; yield (params, paths, change), where
    change(options) mounts the disk anew with other options.
    """
    if os.geteuid() != 0 or mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path).returncode:
        pytest.skip("mounting a small disk needs root")
    shutil.copytree(tiny_project, tmp_path, dirs_exist_ok=True)
    yield (
        load_params(tmp_path / "params.yaml"),
        Paths(tmp_path, "v1"),
        lambda options: mount("-o", f"remount,{options}", tmp_path),
    )
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def filled(folder):
    """Leave no byte on the disk of `folder`; return the file to delete."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 4096)
    return ballast


def test_a_full_disk_is_one_line_and_another_run_with_space_gives_what_there_was_before(disk):
    params, paths, _ = disk
    before, kept = points(paths, "rtn"), paths.points("digits", "rtn").read_bytes()
    shutil.rmtree(paths.artefacts("digits", "rtn"))
    ballast = filled(paths.root)
    with pytest.raises(
        UserError,
        match="No space left on device: free space or mend the permissions, then run again",
    ) as error:
        compress(params, paths, "digits", ["rtn"])
    assert "\n" not in str(error.value) and paths.points("digits", "rtn").read_bytes() == kept, (
        "the records of before stand"
    )
    ballast.unlink()
    done = compress(params, paths, "digits", ["rtn"])
    assert (done.run, done.failed) == (2, 0)
    assert points(paths, "rtn") == before


def test_a_disk_that_fills_up_in_a_worker_is_a_failed_row_or_one_line(disk):
    params, paths, change = disk
    shutil.rmtree(paths.artefacts("digits", "rtn"))
    used = sum(file.stat().st_size for file in paths.root.rglob("*") if file.is_file())
    # a program takes 64 KiB: one point fits, two do not
    change(f"size={(used // 4096 + 40) * 4096}")
    try:
        assert compress(params, paths, "digits", ["rtn"]).failed
        assert any(
            "No space left on device" in (record["reason"] or "") for record in points(paths, "rtn")
        )
    except UserError as error:
        assert "No space left on device" in str(error) and "\n" not in str(error)
    change("size=8m")
    assert (
        compress(params, paths, "digits", ["rtn"]).failed == 0
        and len(points(paths, "magnitude")) == 1
    )


def test_a_read_only_disk_is_one_line_and_loses_nothing(disk):
    params, paths, change = disk
    whole = paths.points("digits", "rtn").read_bytes()
    change("ro")
    with pytest.raises(
        UserError,
        match=r"cannot write .*: Read-only file system: free space or mend the permissions",
    ) as error:
        compress(params, paths, "digits", ["rtn"])
    assert "\n" not in str(error.value) and paths.points("digits", "rtn").read_bytes() == whole


@pytest.mark.parametrize("moment", [0, 4_000_000_000], ids=["1970", "2096"])
def test_a_clock_that_jumps_has_nothing_run_again(tiny_project, tmp_path, moment):
    root = shutil.copytree(tiny_project, tmp_path / "project")
    for path in root.rglob("*"):
        os.utime(path, (moment, moment))
    params, paths = load_params(root / "params.yaml"), Paths(root, "v1")
    assert all(compress(params, paths, "digits", [method]).run == 0 for method in params.plans)


@pytest.mark.parametrize(
    "name", ["program.pt2", "weights.safetensors", "predictions.safetensors", "record.json"]
)
def test_an_artefact_whose_file_is_gone_is_made_again_and_its_neighbour_is_not(
    tiny_project, tmp_path, name
):
    root = shutil.copytree(tiny_project, tmp_path / "project")
    params, paths = load_params(root / "params.yaml"), Paths(root, "v1")
    (paths.artefacts("digits", "rtn") / "mixer_bits=4_seed=0" / name).unlink()
    done = compress(params, paths, "digits", ["rtn"])
    assert (done.run, done.reused, done.failed) == (1, 1, 0)


def test_records_that_are_damaged_are_written_anew_from_the_points(tiny_project, tmp_path):
    root = shutil.copytree(tiny_project, tmp_path / "project")
    params, paths = load_params(root / "params.yaml"), Paths(root, "v1")
    for file in (paths.points("digits", "rtn"), paths.predictions("digits", "rtn")):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        assert compress(params, paths, "digits", ["rtn"]).run == 0 and file.read_bytes() == whole


@pytest.mark.slow
def test_of_two_runs_of_a_method_at_once_one_says_so_and_ends(tiny_project, tmp_path):
    root = shutil.copytree(tiny_project, tmp_path / "project")
    params, paths = load_params(root / "params.yaml"), Paths(root, "v1")
    shutil.rmtree(paths.artefacts("digits", "rtn"))
    command = ["python", "-m", "shrinkmark", "compress", "digits", "rtn"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    both = [
        subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    deadline = time.monotonic() + 120
    errors = [process.communicate(timeout=deadline - time.monotonic())[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], errors
    (refused,) = (
        text for text, process in zip(errors, both, strict=True) if process.returncode == 2
    )
    assert refused == (
        "error: another command works on track 'digits' in project: wait until it has ended, then "
        "run this again\n"
    )
    assert compress(params, paths, "digits", ["rtn"]).failed == 0
