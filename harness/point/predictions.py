"""What an artefact answered to every test image: the class, how sure it was of it, and
at which rank it had the label.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from leaderboard.records import files

Predictions = dict[str, NDArray[Any]]
FILE = "predictions.safetensors"
PARTS = ("class", "confidence", "rank")


def predictions(logits: Tensor, labels: Tensor) -> Predictions:
    """Return of `logits` (N, classes) and `labels` (N,), each (N,): class, uint16;
    confidence, its softmax, float16; rank of the label, uint16.

    Rank 0 is the class itself: of equal logits the lower class goes before, as it does
    for the class.
    """
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(1)
    return {
        "class": logits.argmax(1).numpy().astype(np.uint16),
        "confidence": logits.softmax(1).amax(1).numpy().astype(np.float16),
        "rank": rank.numpy().astype(np.uint16),
    }


def write(folder: Path, found: Predictions) -> None:
    """Write them beside an artefact."""
    (folder / FILE).write_bytes(safetensors.numpy.save(found))


def read(folder: Path) -> Predictions:
    """Read what `write` wrote; raise UserError if it is missing or damaged."""
    with files.reading(folder / FILE):
        found = safetensors.numpy.load((folder / FILE).read_bytes())
        return {part: found[part] for part in PARTS}
