"""What two runs of one experiment share, byte for byte, and the little that they do
not.
"""

import shutil

import pytest

from harness.run.compress import compress
from harness.run.paths import Paths
from harness.run.train import train_track


@pytest.mark.slow
def test_two_runs_in_fresh_folders_differ_in_what_they_took_alone(small, tmp_path):
    params, trained = small
    found = {}
    for name in ("first", "second"):
        paths = Paths(tmp_path / name, params.version)
        paths.root.mkdir()
        shutil.copy(trained.root / "params.yaml", paths.root)
        train_track(params, paths, "digits")
        done = compress(params, paths, "digits")
        assert (done.reused, done.failed) == (0, 0) and done.run == done.skipped + 9
        found[name] = {
            file.relative_to(paths.root).as_posix(): file.read_bytes()
            for file in paths.root.rglob("*")
            if file.is_file()
        }
    first, second = found.values()
    assert first.keys() == second.keys()
    differing = {name for name in first if first[name] != second[name]}
    took = {name for name in first if "/spent/" in name or "/costs/" in name}
    assert differing <= took and any("/costs/" in name for name in differing), (
        "seconds are never the same"
    )
    same = first.keys() - took
    for kind in (
        "track.json",
        "/points/rtn.json",
        "/predictions/rtn.safetensors",
        "/program.pt2",
        "/weights.safetensors",
        "/record.json",
    ):
        assert any(name.endswith(kind) for name in same), "else this tests nothing"
