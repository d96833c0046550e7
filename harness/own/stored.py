"""A compressed model as the files of an artefact, and back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.own.compressing import IMAGES
from harness.own.errors import value_errors
from harness.point import store
from leaderboard.records import files


class Loaded(nn.Module):
    """A compressed model read back, in eval mode: takes images (N, C, H, W) of any
    batch size, and moves with `.to()`; `files`: what it was read from.
    """

    def __init__(
        self, artefact: store.Artefact, images: tuple[int, ...], files: dict[str, bytes]
    ) -> None:
        super().__init__()
        self.files, self._artefact, self.module = files, artefact, artefact.module
        setattr(self, IMAGES, images)
        self.training = False  # the program has no other mode, and refuses to be told

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images)
        return logits

    def train(self, mode: bool = True) -> Loaded:
        """Stay in eval mode; raise ValueError if asked to train: what is stored is a
        program for inference.
        """
        if mode:
            raise ValueError(
                "a compressed model that was loaded is for inference: train the model that "
                "compress() returned, before it is saved"
            )
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Loaded:
        """Move as `.to()`, `.cuda()` and `.cpu()` ask; what the program itself makes on
        a device moves with it.
        """
        device = fn(torch.empty(0)).device
        self.module = self._artefact.on(device)
        return self


def save(model: nn.Module, folder: Path) -> None:
    """Write `model` as an artefact into `folder`, made if there is none; raise
    ValueError if it holds one, or `model` was neither compressed nor loaded.
    """
    images = shape_of(model)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name another folder, or remove what is in it")
    folder.mkdir(parents=True, exist_ok=True)
    write(model, images, folder)


def write(model: nn.Module, images: tuple[int, ...], folder: Path) -> None:
    """Write `model`, which takes images of the shape `images`, as an artefact into the
    empty `folder`.
    """
    if isinstance(model, Loaded):  # whose codes are decoded: its files say more than it does
        for name, content in model.files.items():
            files.write_bytes(folder / name, content)
        return
    with value_errors():
        private = copy.deepcopy(model).cpu().eval()
        store.write(folder, store.export(private, torch.zeros(2, *images)), store.codes_of(model))


def load(folder: Path) -> Loaded:
    """Read an artefact back, onto the CPU; raise ValueError if there is none, or it is
    damaged.
    """
    with value_errors():
        artefact = store.read(folder)
    (images,) = (
        node.meta["val"].shape[1:]
        for node in artefact.program.graph.nodes
        if node.name in artefact.program.graph_signature.user_inputs
    )
    return Loaded(
        artefact,
        tuple(int(size) for size in images),
        {
            name: (folder / name).read_bytes()
            for name in (store.PROGRAM, store.GRAPH, store.WEIGHTS)
            if (folder / name).exists()
        },
    )


def shape_of(model: nn.Module) -> tuple[int, ...]:
    """Return the shape (C, H, W) of the images that a compressed model takes; raise
    ValueError if it is none of ours.
    """
    found: Any = getattr(model, IMAGES, None)
    if found is None:
        raise ValueError(
            "this model was not made by shrinkmark.compress() or load(): its artefact needs the "
            "shape of an image, which they note"
        )
    shape: tuple[int, ...] = found
    return shape
