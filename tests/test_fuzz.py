"""Damaged files of our own formats are accepted or refused in one line, in little time
and memory; tools/fuzz.py does the same for longer.
"""

import json
import shutil
import struct
import tracemalloc
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings

from harness.point import archive, weights_file
from leaderboard.records.errors import UserError
from tools import fuzz

FOUND = sorted(fuzz.CORPUS.glob("*/*.bin"))


@pytest.fixture(scope="module")
def root(tiny_project, tmp_path_factory):
    """A copy of the tiny project, whose files are damaged and put right again."""
    return shutil.copytree(tiny_project, tmp_path_factory.mktemp("fuzz"), dirs_exist_ok=True)


@pytest.mark.parametrize("reader", fuzz.READERS, ids=lambda reader: reader.name)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=fuzz.seeds())
def test_a_damaged_file_is_accepted_or_refused_in_one_line(root, reader, seed):
    fuzz.read(reader, root, fuzz.example(reader, (root / reader.file).read_bytes(), seed))


@pytest.mark.parametrize("found", FOUND, ids=lambda found: f"{found.parent.name}-{found.stem}")
def test_what_once_broke_a_reader_does_not_any_more(root, found):
    fuzz.read(fuzz.BY_NAME[found.parent.name], root, found.read_bytes())


@pytest.mark.parametrize("reader", fuzz.READERS, ids=lambda reader: reader.name)
def test_the_whole_file_is_accepted(root, reader):
    reader.read(root / reader.file)


HUGE = 10**12
FORMS = [
    {"form": "mask", "shape": [HUGE]},
    {"form": "mask", "shape": [HUGE, HUGE, HUGE]},
    {"form": "codes", "shape": [HUGE], "rows": HUGE, "columns": 1, "bits": 8, "group": 1},
    {"form": "codes", "shape": [8], "rows": -1, "columns": -8, "bits": 8, "group": 1},
    {"form": "codes", "shape": [8], "rows": 0, "columns": 0, "bits": 8, "group": 1},
    {"form": "codebook", "shape": [HUGE], "count": HUGE, "bits": 1, "huffman": False},
    {"form": "codebook", "shape": [HUGE], "count": HUGE, "bits": 16, "huffman": True},
    {"form": "pickle", "shape": [8]},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_weights_that_claim_to_be_huge_are_refused_before_memory_is_taken(form):
    parts = (
        "mask",
        "values",
        "codes",
        "scale",
        "zero",
        "index",
        "centroids",
        "stream",
        "lengths",
        "symbols",
    )
    entries = {f"w|{part}": torch.ones(8, dtype=torch.uint8) for part in parts}
    content = safetensors.torch.save(entries, {weights_file.FORMAT: json.dumps({"w": form})})
    tracemalloc.start()
    with pytest.raises(ValueError, match="not a weights file of shrinkmark, or damaged"):
        weights_file.decode(content)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63 - 1, 2**64 - 1])
def test_a_header_of_another_length_is_refused(length):
    whole = weights_file.encode({"w": torch.ones(3)}, {})
    with pytest.raises(ValueError, match="not a weights file"):
        weights_file.decode(struct.pack("<Q", length) + whole[8:])


def test_weights_of_another_program_are_refused():
    with pytest.raises(ValueError, match="not a weights file"):
        weights_file.decode(safetensors.torch.save({"w": torch.ones(3)}, {"format": "pt"}))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    bomb = tmp_path / "program.pt2"
    with ZipFile(bomb, "w", ZIP_DEFLATED) as file:
        file.writestr("program/models/model.json", b"0" * 2**28)
    assert bomb.stat().st_size < 2**19
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"is compressed, which torch\.export never does"):
        archive.refuse_pickles(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


@pytest.mark.parametrize(
    "name",
    [
        "../../escaped",
        "/etc/escaped",
        "program/../../escaped",
        "program/data/weights/../../x",
        "program/data/aotinductor/m/m.so",
    ],
)
def test_a_program_with_an_entry_outside_its_places_is_refused(tmp_path, name):
    with ZipFile(tmp_path / "program.pt2", "w") as file:
        file.writestr(name, b"x")
    with pytest.raises(ValueError, match="neither a tensor nor what describes them"):
        archive.refuse_pickles(tmp_path / "program.pt2")


def test_yaml_that_would_run_code_is_refused(tmp_path):
    (tmp_path / "params.yaml").write_text("version: !!python/object/apply:os.mkdir [escaped]\n")
    with pytest.raises(UserError, match="not valid YAML"):
        fuzz.BY_NAME["params"].read(tmp_path / "params.yaml")
