"""How an image becomes what a model takes: each model's own size, crop, interpolation,
mean and deviation, as timm knows them, unless the track or the model says otherwise.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
from PIL.Image import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor
from torch.nn import functional

from leaderboard.records.errors import UserError
from leaderboard.records.params import TrackParams

FALLBACK = {"architecture": "none"}  # of a model that timm knows nothing of: its defaults


@dataclass(frozen=True)
class Transform:
    """What happens to an image; `mean` and `std` are of pixels in [0, 1], None for those
    of the training split. crop: the share of the resized image that is kept, its centre.
    """

    size: tuple[int, int]  # height, width
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    interpolation: str
    crop: float
    crop_mode: str

    @property
    def key(self) -> str:
        """Return a name that is unique among transforms, and a legal file name."""
        units = (
            "train"
            if self.mean is None
            else hashlib.sha256(repr((self.mean, self.std)).encode()).hexdigest()[:8]
        )
        size = "x".join(map(str, self.size))
        return f"{size}-{self.interpolation}-{self.crop:g}-{self.crop_mode}-{units}"

    def of_files(self) -> Callable[[Image], np.ndarray]:
        """Return what makes of an image (RGB) the pixels (3, H, W) uint8 that timm's
        evaluation normalises.
        """
        made: Callable[[Image], Tensor] = create_transform(
            (3, *self.size),
            is_training=False,
            use_prefetcher=True,
            interpolation=self.interpolation,
            crop_pct=self.crop,
            crop_mode=self.crop_mode,
        )
        return lambda image: made(image).numpy()

    def of_arrays(self, pixels: Tensor) -> Tensor:
        """Return pixels (N, C, h, w) at the size, uint8 if they are and have it, else
        float32 in [0, 1], resized bilinearly.

        Raises UserError for a crop or an interpolation that stored pixels do not get.
        """
        if pixels.shape[-2:] == self.size:
            return pixels
        if (self.interpolation, self.crop) != ("bilinear", 1.0):
            raise UserError(
                f"stored pixels are resized bilinearly and whole, found interpolation "
                f"{self.interpolation}, crop {self.crop:g}: say `interpolation: bilinear` and "
                "`crop: 1` in the track"
            )
        if pixels.dtype == torch.uint8:
            pixels = pixels.float() / 255
        return functional.interpolate(pixels, size=self.size, mode="bilinear", align_corners=False)


def transform_of(track: TrackParams, model: str) -> Transform:
    """Return the transform of a model of the track."""
    about = track.models[model]
    own = _own(about.timm)
    said = [about, track]  # who is asked first

    def chosen(name: str, default: Any) -> Any:
        return next((found for who in said if (found := getattr(who, name)) is not None), default)

    size = chosen("image_size", own["input_size"][1:])
    normalise = chosen("normalise", None)
    mean, std = (
        (None, None)
        if normalise == "train"
        else (own["mean"], own["std"])
        if normalise is None
        else (normalise.mean, normalise.std)
    )
    return Transform(
        size=(size, size) if isinstance(size, int) else (size[0], size[1]),
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        interpolation=chosen("interpolation", own["interpolation"]),
        crop=float(chosen("crop", own["crop_pct"])),
        crop_mode=own["crop_mode"],
    )


def transforms(track: TrackParams) -> dict[str, Transform]:
    """Return the transforms of all models of the track by key, each once."""
    return {made.key: made for model in track.models for made in [transform_of(track, model)]}


def _own(name: str) -> dict[str, Any]:
    """Return what timm knows of a model's images, its defaults where that is nothing."""
    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    found: dict[str, Any] = resolve_data_config(
        {}, pretrained_cfg=FALLBACK if known is None else known.to_dict()
    )
    return found
