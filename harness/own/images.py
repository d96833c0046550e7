"""Images and labels as somebody hands them over, a tensor or a DataLoader, as one
tensor each on the device of the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from harness.models import classifier
from harness.own.errors import value_errors

Images = Tensor | DataLoader  # type: ignore[type-arg]  # of whatever its dataset holds


@dataclass(frozen=True)
class Given:
    """Images (N, C, H, W) float32 as the model takes them, and their labels (N,) int64
    if there are any.
    """

    images: Tensor
    labels: Tensor | None


def given(images: Images, labels: Tensor | None, device: torch.device, what: str) -> Given:
    """Return `images`, and `labels` or those that the loader yields, on `device`; raise
    ValueError, which begins with `what`, if they cannot be that.
    """
    found, own = (images, None) if isinstance(images, Tensor) else _stacked(images, what)
    labels = own if labels is None else labels
    if found.ndim != 4 or len(found) == 0 or not found.is_floating_point():
        raise ValueError(
            f"{what}: give images (N, C, H, W) of floating point as the model takes them, found "
            f"{tuple(found.shape)} of {found.dtype}"
        )
    if labels is not None and (labels.shape != found.shape[:1] or labels.is_floating_point()):
        raise ValueError(
            f"{what}: give one integer label an image, found {tuple(labels.shape)} of "
            f"{labels.dtype} for {len(found)} images"
        )
    return Given(found.to(device).float(), None if labels is None else labels.to(device).long())


def _stacked(batches: Iterable[object], what: str) -> tuple[Tensor, Tensor | None]:
    """Return all images that a loader yields, and their labels if it yields pairs."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in batches:
        parts = list(batch) if isinstance(batch, (tuple, list)) else [batch]
        pair = [part for part in parts if isinstance(part, Tensor)]
        if len(pair) != len(parts) or len(pair) not in (1, 2):
            raise ValueError(
                f"{what}: the loader must yield tensors of images, or pairs of images and labels, "
                f"found {type(batch).__name__}"
            )
        images.append(pair[0])
        labels.extend(pair[1:])
    if not images:
        raise ValueError(f"{what}: the loader is empty: give at least one image")
    return torch.cat(images), torch.cat(labels) if labels else None


def device_of(model: nn.Module) -> torch.device:
    """Return where the first parameter of `model` lies, or the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def classes_of(model: nn.Module, images: Tensor) -> int:
    """Return how many classes `model` (eval mode) tells apart; raise ValueError if it
    is no classifier of images like these.
    """
    with value_errors():
        return classifier.classes_of(model, images)
