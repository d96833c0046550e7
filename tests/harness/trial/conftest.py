"""Photographs of three classes and a checkpoint trained on them, and commands on both."""

import os
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.conftest import ROOT

CLASSES = ("blue", "green", "red")
SIDE = 64


def command(*arguments, cwd):
    """Run a command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd / "cache")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with 90 photographs of three classes, and the checkpoint of a small ResNet trained on some of them."""
    home, draw = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    pixels, labels = [], []
    for label, name in enumerate(CLASSES):
        (home / "photographs" / name).mkdir(parents=True)
        for number in range(30):
            image = draw.integers(0, 120, (SIDE, SIDE, 3), dtype=np.uint8)
            image[..., 2 - label] += 60
            Image.fromarray(image).save(home / "photographs" / name / f"{number}.png")
            pixels.append(image)
            labels.append(label)
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3)
    mean, std = (torch.tensor(model.default_cfg[name])[:, None, None] for name in ("mean", "std"))
    images = (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255 - mean) / std
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(12):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images), torch.tensor(labels)).backward()
        optimiser.step()
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}},
        home / "mine.pt",
    )
    return home
