"""What a model answers on photographs without labels, in place of these: what a
compressed model is held against is then dense itself.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from harness.data import SPLIT_SEED, dataset
from harness.data.image_files import BrokenImage, ImageFiles
from harness.data.image_folder import Found, ImageFolder
from harness.data.transform import Transform, transform_of
from harness.models import weights
from harness.run import registry
from harness.run.progress import progress
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
    which = np.concatenate([found.test, _calibrated_on(found, track.calibration)])
    names = [str(found.files.paths[index].relative_to(root)) for index in which]
    stamps = [found.files.paths[index].stat() for index in which]
    held = [loaded.sha256, transform.key, names, [(one.st_size, one.st_mtime_ns) for one in stamps]]
    key = hashlib.sha256(json.dumps(held).encode()).hexdigest()
    if file.exists() and files.read_json(file).get("key") == key:
        return
    answers = _answers(
        loaded.model.eval(), found.files, which, transform, track.data["skip_broken"]
    )
    said = {name: answer for name, answer in zip(names, answers, strict=True) if answer is not None}
    files.write_text(file, json.dumps({"key": key, "answers": said}, indent=0) + "\n")


def _calibrated_on(found: Found, count: int) -> np.ndarray:
    if count > len(found.train):
        raise UserError(
            f"calibration asks for {count} images but train has {len(found.train)}: lower it by "
            "--calibration"
        )
    return np.random.default_rng(SPLIT_SEED).choice(found.train, count, replace=False)


@torch.inference_mode()
def _answers(
    model: nn.Module,
    images: ImageFiles,
    which: np.ndarray,
    transform: Transform,
    skip_broken: bool,
) -> list[int | None]:
    """Return the class that the model answers on each image, None on one that is none."""
    of_file = transform.of_files()
    mean, std = (
        255 * torch.tensor(moment)[:, None, None] for moment in (transform.mean, transform.std)
    )

    def pixels(index: int) -> Tensor | None:
        try:
            return (torch.from_numpy(of_file(images.decode(index))) - mean) / std
        except BrokenImage:
            if not skip_broken:
                raise
            return None

    found: list[int | None] = []
    with progress("what dense answers", "image", map(str, range(len(which)))) as bar:
        for start in range(0, len(which), BATCH):
            read = [pixels(int(index)) for index in which[start : start + BATCH]]
            whole = [image for image in read if image is not None]
            said = iter(model(torch.stack(whole)).argmax(1).tolist() if whole else [])
            found += [None if image is None else next(said) for image in read]
            for number in range(len(read)):
                bar.ended(str(start + number))
    return found
