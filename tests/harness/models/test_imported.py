"""Architectures of somebody's own that timm is told of."""

import sys

import pytest
import timm
import torch

from harness.models import imported
from harness.models.imported import import_models, model_named
from harness.run.fingerprint import model_hash
from leaderboard.records.errors import UserError

MARKED = """
from timm.models import register_model
from neighbour_of_own import make

@register_model
def own_marked(pretrained=False, num_classes=7, in_chans=3, **options):
    return make(num_classes)
"""
NEIGHBOUR = """
from torch import nn

def make(classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))
"""
PLAIN = """
from neighbour_of_own import make

def own_plain(num_classes=7):
    return make(num_classes)
"""
OWN = ("own_marked_file", "neighbour_of_own", "own_plain_file")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in zip(OWN, (MARKED, NEIGHBOUR, PLAIN), strict=True):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in OWN:
        sys.modules.pop(name, None)
    for name in ("own_marked", "own_plain"):
        timm.models._registry._model_entrypoints.pop(name, None)


def test_a_file_and_a_function_become_models_of_timm(folder, monkeypatch):
    monkeypatch.chdir(folder)
    import_models([str(folder / "own_marked_file.py"), "own_plain_file:own_plain"])
    import_models([str(folder / "own_marked_file.py"), "own_plain_file:own_plain"])  # once
    for name in ("own_marked", "own_plain"):
        made = timm.create_model(name, num_classes=4, in_chans=3)
        assert made(torch.zeros(2, 3, 4, 4)).shape == (2, 4)
    assert imported.home("own_marked") == "own_marked_file" and imported.home("resnet18") is None
    assert model_named("own_plain_file:own_plain") == "own_plain"
    assert model_named("hf-hub:owner/name") == "hf-hub:owner/name"


def test_what_a_file_imports_from_beside_it_is_in_its_hash_and_what_it_does_not_is_not(folder):
    import_models([str(folder / "own_marked_file.py")])
    before = model_hash("own_marked")
    (folder / "own_plain_file.py").write_text(PLAIN + "# other\n")
    assert before == model_hash("own_marked") != model_hash("resnet_small")
    (folder / "neighbour_of_own.py").write_text(NEIGHBOUR + "# other\n")
    changed = model_hash("own_marked")
    assert changed != before
    (folder / "own_parts").mkdir()  # a package without __init__.py
    (folder / "own_parts" / "part.py").write_text("WIDTH = 1\n")
    (folder / "neighbour_of_own.py").write_text("from own_parts import part\n" + NEIGHBOUR)
    with_part = model_hash("own_marked")
    (folder / "own_parts" / "part.py").write_text("WIDTH = 2\n")
    assert model_hash("own_marked") not in (with_part, changed)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone.py", "there is no such file"),
        ("own_marked_file", "is neither a file nor a function"),
        ("own_plain_file:gone", "the module has no such function"),
        ("no_such_package:model", "No module named 'no_such_package'"),
        ("broken.py", "cannot be imported: NameError: name 'nothing' is not defined"),
        ("not-a-name.py", "is no module's name: call the file otherwise"),
        ("timm.py", "is that of another module: call the file otherwise"),
        ("tabnanny.py", "is another module too: call the file otherwise"),
        ("own_plain_file:resnet18", "timm has a 'resnet18': call yours otherwise"),
    ],
)
def test_what_cannot_be_imported_is_one_line(folder, monkeypatch, name, said):
    monkeypatch.chdir(folder)
    for own in ("broken", "not-a-name", "timm", "tabnanny"):
        (folder / f"{own}.py").write_text("nothing\n")
    (folder / "own_plain_file.py").write_text("def resnet18():\n    pass\n")
    with pytest.raises(UserError, match=said) as error:
        import_models([name])
    assert "\n" not in str(error.value)
