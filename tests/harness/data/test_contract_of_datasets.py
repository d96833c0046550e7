"""A new dataset is one file: a track with its name loads it, and the kernel closes to
methods what it says that its test images lie in.
"""

import os
import subprocess
import sys
from pathlib import Path

import landlockpy
import pytest

from harness import data
from leaderboard.records.errors import UserError
from tests.conftest import loaded

NOISE = '''
"""Noise: forty images."""

from pathlib import Path

import numpy as np

from harness.data import Dataset, Source, sha256
from harness.data.folder import data_folder


class Noise(Dataset):
    def load(self):
        images = np.load(data_folder() / "noise" / "images.npy")
        labels, index = np.arange(40) % 10, np.arange(40)
        return Source("Noise", images, labels, index[:20], index[20:30], index[30:], {"images": sha256(images)}, 10)

    def closed(self):
        return [Path("noise"), Path(__file__).with_name("noise.txt")]
'''
WRITE = """
import numpy, sys
numpy.save(sys.argv[1], numpy.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), numpy.uint8))
"""
GUARDED = """
import sys
from pathlib import Path
from types import SimpleNamespace
from harness import data
from harness.point.worker import Job
from harness.run.guard import close, with_test_images

folder, files = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
data.__path__.append(str(folder))
job, track = folder / "artefacts" / "noise" / "data" / "4x4", SimpleNamespace(dataset="noise", data={})
closed = list(with_test_images(Job(track, "m", "m", {}, 0, job, folder, folder, 2.0)))
assert all(file.read_bytes() for file in files)
close(closed)
for file in files:
    try:
        print(len(file.read_bytes()) > 0)
    except PermissionError:
        print("closed")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the dataset `noise` in one file, which is looked into for datasets;
    it is the data folder too, and holds what noise reads.
    """
    (tmp_path / "noise.py").write_text(NOISE)
    (tmp_path / "noise.txt").write_text("beside it")
    (tmp_path / "noise").mkdir()
    subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path / "noise" / "images.npy")], check=True
    )
    monkeypatch.setattr(data, "__path__", [*data.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "harness.data.noise", raising=False)
    monkeypatch.setenv("SHRINKMARK_DATA", str(tmp_path))
    return tmp_path


def test_the_datasets_are_the_files_that_hold_one():
    assert data.names() == ["cifar10", "digits", "image_folder", "timm_dataset"]


def test_a_track_on_a_new_dataset_is_loaded_by_the_name_of_its_file(place, track):
    assert data.names() == ["cifar10", "digits", "image_folder", "noise", "timm_dataset"]
    found = loaded(track.model_copy(update={"dataset": "noise", "calibration": 4}))
    assert found.title == "Noise" and found.test.images.shape == (
        10,
        1,
        track.image_size,
        track.image_size,
    )
    assert {place / "noise", place / "noise.txt", place / "cifar10"} <= set(data.closed_by_all())


@pytest.mark.skipif(not landlockpy.supported(), reason="this kernel has no Landlock")
def test_no_guarded_process_reads_what_a_new_dataset_closes(place):
    (place / "open.txt").write_text("for all")
    files = [place / "noise" / "images.npy", place / "noise.txt", place / "open.txt"]
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, str(place), *map(str, files)],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.stdout.split() == ["closed", "closed", "True"], done.stderr


def test_without_a_data_folder_what_lies_in_packages_is_closed_all_the_same(place, monkeypatch):
    monkeypatch.setenv("SHRINKMARK_DATA", str(place / "misspelt"))
    found = data.closed_by_all()
    assert place / "noise.txt" in found and all(path.is_absolute() for path in found)
    assert any(
        path.parts[-3:] == ("sklearn", "datasets", "data") and path.is_dir() for path in found
    )


WRONG = [
    (
        "import gone_for_good",
        "dataset 'noise' cannot be imported: ModuleNotFoundError: No module named 'gone_for_good'",
    ),
    (
        "",
        "dataset 'noise' must be one class derived from Dataset with methods load and closed, "
        "found 0",
    ),
    (
        NOISE.replace("def load", "def lead"),
        "dataset 'noise' must be one class derived from Dataset with methods load and closed",
    ),
    (NOISE + "\n\nclass More(Noise):\n    pass\n", "found 2"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_file_that_is_no_complete_dataset_is_one_line(place, text, said):
    Path(place / "noise.py").write_text(text)
    with pytest.raises(UserError, match=said):
        data.dataset("noise")


def test_neither_a_part_nor_a_misspelt_name_is_a_dataset():
    with pytest.raises(UserError, match="unknown dataset '_cifar10_files'"):
        data.dataset("_cifar10_files")
    with pytest.raises(UserError, match="did you mean 'digits'"):
        data.dataset("digit")
