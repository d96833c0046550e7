"""Making an untrained model of a track: any that timm knows by name, ours among
them.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

from typing import Any

import timm
from torch import nn

from harness.models import register
from leaderboard.records.errors import UserError, unknown
from leaderboard.records.params import ModelParams


def build(params: ModelParams, channels: int, classes: int, width: float = 1.0) -> nn.Module:
    """Create an untrained timm model for images of `channels` channels, the arguments
    named in `narrow` multiplied by `width`.
    """
    register()
    if not timm.is_model(params.timm):
        raise unknown("timm model", params.timm, timm.list_models())
    args = {
        name: _scaled(value, width, params.narrow[name]) if name in params.narrow else value
        for name, value in params.args.items()
    }
    try:
        return timm.create_model(params.timm, in_chans=channels, num_classes=classes, **args)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UserError(
            f"timm cannot create '{params.timm}' with {args}: {error}; correct its args in "
            "params.yaml"
        ) from error


def _scaled(value: Any, width: float, multiple: int) -> Any:
    if isinstance(value, list):
        return [_scaled(item, width, multiple) for item in value]
    return max(multiple, round(value * width / multiple) * multiple)
