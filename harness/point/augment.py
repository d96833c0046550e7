"""What happens to a batch of training images on its way to the model, in batches on
their device; every draw comes from one CPU generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from leaderboard.records.params import AugmentParams


def cropped(pixels: Tensor, params: AugmentParams, generator: torch.Generator) -> Tensor:
    """Cut a window of the image's size out of each of `pixels` (N, C, H, W) with
    `params.crop` black pixels around it, and mirror it in `params.flip`.
    """
    if not params.crop and not params.flip:
        return pixels
    count, _, height, width = pixels.shape
    draws = torch.rand(3, count, generator=generator).to(pixels.device, non_blocking=True)
    top, left = (draws[:2] * (2 * params.crop + 1)).long()
    rows = top[:, None] + torch.arange(height, device=pixels.device)
    columns = torch.arange(width, device=pixels.device).expand(count, -1)
    columns = left[:, None] + torch.where(
        draws[2, :, None] < params.flip, width - 1 - columns, columns
    )
    padded = functional.pad(pixels, (params.crop,) * 4)
    images = torch.arange(count, device=pixels.device)
    return padded.permute(0, 2, 3, 1)[
        images[:, None, None], rows[:, :, None], columns[:, None, :]
    ].permute(0, 3, 1, 2)


def warped(images: Tensor, params: AugmentParams, generator: torch.Generator) -> Tensor:
    """Rotate, scale and shift each of `images` (N, C, H, W) by its own random affine
    map, borders repeated.
    """
    if not (params.degrees or params.scale or params.shift):
        return images

    def uniform(*shape: int) -> Tensor:
        return (torch.rand(*shape, generator=generator) * 2 - 1).to(
            images.device, non_blocking=True
        )

    count = len(images)
    angle = uniform(count) * math.radians(params.degrees)
    scale = 1 + uniform(count) * params.scale
    shift = uniform(count, 2, 1) * params.shift
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    linear = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    grid = functional.affine_grid(
        torch.cat([linear, shift], 2), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def cut_out(images: Tensor, params: AugmentParams, generator: torch.Generator) -> Tensor:
    """Set a square of `params.cutout` pixels around a random pixel of each of `images`
    (N, C, H, W) to 0, the mean (DeVries and Taylor 2017).
    """
    if not params.cutout:
        return images
    count, _, height, width = images.shape
    draws = torch.rand(2, count, generator=generator).to(images.device, non_blocking=True)
    rows, columns = (
        _near(draw, side, params.cutout) for draw, side in zip(draws, (height, width), strict=True)
    )
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def _near(draw: Tensor, side: int, cutout: int) -> Tensor:
    """Return (N, side) bool: which positions lie within `cutout` around the one that
    each of `draw` in [0, 1) stands for.
    """
    offset = torch.arange(side, device=draw.device) - (draw[:, None] * side).long() + cutout // 2
    return (offset >= 0) & (offset < cutout)
