"""What a model answers on photographs without labels, in place of these: what a
compressed model is held against is then dense itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
import torch
from PIL.Image import Image
from torch import Tensor, nn

from harness.data import SPLIT_SEED, dataset
from harness.data.image_files import BrokenImage, ImageFiles, content
from harness.data.image_folder import HASHES, Found, ImageFolder
from harness.data.transform import Transform, transform_of
from harness.models import weights
from harness.run import registry
from harness.run.fingerprint import libraries, model_hash
from harness.run.progress import Progress, progress
from harness.trial.asked import Asked
from harness.trial.classes import CHANNELS
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params import TrackParams
from methods import Needs

BATCH = 32
WITHOUT_LABELS: tuple[Needs, ...] = ("data-free", "calibration")


def unlabelled(asked: Asked) -> Found | None:
    """Return the images that a trial is about if they have no labels, and None if they
    have; raise UserError if they have none and a method needs some.
    """
    told = dataset(asked.dataset, asked.data)
    if not isinstance(told, ImageFolder):
        return None
    found = told.found()
    if (found.labels >= 0).any():
        return None
    for name in asked.methods:
        needs = registry.load(name).needs
        if needs not in WITHOUT_LABELS:
            raise UserError(
                f"{found.title}: method '{name}' needs labels ({needs}): put the images into one "
                "folder a class, or leave the method out"
            )
    return found


def write_answers(found: Found, track: TrackParams, model: str, file: Path) -> None:
    """Write into `file` what the model answers on all test images and on those that it
    is calibrated on, if it does not say so yet.

    Raises UserError for files that are no images unless they are to be left out, and
    where the weights cannot be had.
    """
    asked = track.models[model]
    root = Path(track.data["folder"])
    loaded = weights.load(asked, CHANNELS, len(found.classes or track.data["classes"]))
    transform = transform_of(track, model)
    pool = np.random.default_rng(SPLIT_SEED).permutation(calibration_pool(found))
    names = {
        int(index): str(found.files.paths[index].relative_to(root))
        for index in [*found.test, *pool]
    }
    held = {
        "weights": loaded.sha256,
        "model": [asked.timm, asked.args, model_hash(asked.timm), libraries()],
        "transform": transform.key,
        "calibration": track.calibration,
        "images": [[*names.values()], _hashes(found, names)],
    }
    key = hashlib.sha256(json.dumps(held).encode()).hexdigest()
    if file.exists() and files.read_json(file).get("key") == key:
        return
    answering = _Answering(
        loaded.model.eval(), found.files, _of_image(transform), track.data["skip_broken"]
    )
    count = len(found.test) + track.calibration
    with progress("what dense answers", "image", map(str, range(count))) as bar:
        tested = answering.on(found.test, len(found.test), bar)
        learnt = answering.on(pool, track.calibration, bar)
    if len(learnt) < track.calibration:
        raise too_few(track.calibration, len(learnt))
    answers = {names[index]: answer for index, answer in (tested | learnt).items()}
    files.write_text(file, json.dumps({"key": key, "answers": answers}, indent=0) + "\n")


def _hashes(found: Found, which: Iterable[int]) -> tuple[str, ...]:
    """Return what the files hold, as the dataset will hash them."""
    paths = [found.files.paths[index] for index in which]
    return content(paths, platformdirs.user_cache_path("shrinkmark") / HASHES)


def calibration_pool(found: Found) -> np.ndarray:
    """Return the images that calibration images are drawn from, as of labelled ones."""
    return found.train if len(found.train) else found.validation


def too_few(count: int, found: int) -> UserError:
    """Return what is said where there are fewer images than calibration asks for."""
    return UserError(
        f"calibration asks for {count} images but there are {found} that are not tested on: lower "
        "it by --calibration"
    )


@dataclass(frozen=True)
class _Answering:
    """A model that answers images which stay files."""

    model: nn.Module
    images: ImageFiles
    of_image: Callable[[Image], Tensor]
    skip_broken: bool

    @torch.inference_mode()
    def on(self, which: np.ndarray, count: int, bar: Progress) -> dict[int, int]:
        """Return the class that the model answers on each of the first `count` images
        that are whole, by index.
        """
        found, waiting = dict[int, int](), [int(index) for index in which]
        while waiting and len(found) < count:
            now = waiting[: min(BATCH, count - len(found))]
            del waiting[: len(now)]
            read = {index: image for index in now if (image := self._pixels(index)) is not None}
            if read:
                answers = self.model(torch.stack([*read.values()])).argmax(1).tolist()
                found |= dict(zip(read, answers, strict=True))
            for number in range(len(read)):
                bar.ended(str(number))
        return found

    def _pixels(self, index: int) -> Tensor | None:
        """Return an image as the model takes it, None for a file that is left out."""
        try:
            return self.of_image(self.images.decode(index))
        except BrokenImage:
            if not self.skip_broken:
                raise
            return None


def _of_image(transform: Transform) -> Callable[[Image], Tensor]:
    """Return what makes of an image what the model takes."""
    pixels = transform.of_files()
    mean, std = (
        255 * torch.tensor(moment)[:, None, None] for moment in (transform.mean, transform.std)
    )
    return lambda image: (torch.from_numpy(pixels(image)) - mean) / std
