"""What README and docs print can be done: their links lead somewhere, their commands are commands, and the Python lines run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import typer
from PIL import Image
from torch import nn

from harness.cli.command import app
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """Return the arguments of every line `shrinkmark ...` in the code blocks of `page`."""
    lines = [line for _, text in BLOCK.findall(page.read_text()) for line in text.splitlines()]
    return [
        shlex.split(line, comments=True)[1:] for line in lines if line.startswith("shrinkmark ")
    ]


def parsed(arguments: list[str]) -> None:
    """Parse a command line without running it; raise typer's error if it is none."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]
    command.make_context(name, list(arguments))


def test_the_readme_is_read_to_the_end():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_there_are(page):
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link.split("#")[0]).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_commands_with_these_options(page):
    for arguments in commands(page):
        parsed(arguments)


def test_a_command_that_is_none_would_be_found():
    assert sum(len(commands(page)) for page in PAGES) > 15
    with pytest.raises(KeyError):
        parsed(["shw"])
    with pytest.raises(Exception, match="No such option"):
        parsed(["show", "--trak", "digits"])


def test_every_page_of_the_docs_is_in_their_index():
    index = (ROOT / "docs" / "README.md").read_text()
    assert [
        page.name for page in PAGES[2:] if page.name not in index and page.name != "README.md"
    ] == []


def test_the_python_lines_of_the_readme_run(tmp_path, monkeypatch):
    (lines,) = [
        text for kind, text in BLOCK.findall((ROOT / "README.md").read_text()) if kind == "python"
    ]
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    convolutions = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()
    model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
    images = torch.rand(24, 3, 12, 12)
    labels = torch.arange(24) % 4
    known = {"model": model.eval(), "images": images, "labels": labels, "x": images, "y": labels}
    exec(lines, known)
    assert (
        known["small"](images[:5]).shape == (5, 4) and (tmp_path / "small" / "program.pt2").exists()
    )


# lines of README that the test below leaves out, and why
LEFT_OUT = {
    "git clone <this repository> && cd shrinkmark": "the test clones",
    "pip install -e . --constraint constraints.txt": "the environment is that of this test",
    "dvc repro tracks/cifar10_cpu/dvc.yaml": "hours, and CIFAR-10",
}
SKELETON = 'raise NotImplementedError("compress() of my_method is yet to be written")'


def photographs_and_weights(folder: Path) -> None:
    """Write what README's first command names: photos/ and vit_tiny.safetensors."""
    draw = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(40):
            pixels = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    safetensors.torch.save_file(model.state_dict(), folder / "vit_tiny.safetensors")


@pytest.mark.slow
def test_the_commands_of_the_readme_run_as_printed_in_a_fresh_clone(tmp_path):
    clone = tmp_path / "shrinkmark"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    (clone / ".venv").symlink_to(sys.prefix)
    (clone / ".venv" / "ready").touch()
    photographs_and_weights(clone)
    lines = [
        line.split("  #")[0].strip()
        for kind, text in BLOCK.findall((clone / "README.md").read_text())
        if not kind
        for line in text.splitlines()
    ]
    commands = [line for line in lines if re.match(r"(make|shrinkmark|dvc|python|git|pip) ", line)]
    assert set(LEFT_OUT) <= set(commands)
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(clone), "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    for command in commands:
        if command in LEFT_OUT:
            continue
        done = subprocess.run(
            ["bash", "-c", command], cwd=clone, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        if command.startswith("shrinkmark new"):  # whose skeleton asks for the method itself
            file = clone / "methods" / "my_method.py"
            file.write_text(file.read_text().replace(SKELETON, "return model"))


def test_the_notebook_runs_from_the_first_cell_to_the_last_and_ends_with_a_good_model(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "docs" / "own-model.ipynb").read_text())["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    rows = names["rows"]
    assert set(rows[rows["note"] != ""]["method"]) == {"tome"}
    small, images, labels, test = (names[name] for name in ("small", "images", "labels", "test"))
    assert names["best"]["compression_ratio"] > 4
    assert (small(images[test]).argmax(1) == labels[test]).float().mean() > 0.9
