"""Reference weights of a timm model: found by name under SHRINKMARK_DATA or fetched
from their public address, and checked by hash.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import hashlib
import re
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

import timm
import torch
from torch import nn

from harness.data.folder import data_folder
from harness.models import register
from leaderboard.records.errors import UserError
from leaderboard.records.params import ModelParams


def reference_file(timm_name: str) -> Path:
    """Return the file of the reference weights; its sha256 begins with the digits that
    its name ends with, as torch.hub has it.

    Looked for as `weights/<name>` in the data folder; fetched into it otherwise. Raises
    UserError if timm knows no address for the model, if the file can be had neither
    way, or if it is damaged.
    """
    register()
    cfg = timm.get_pretrained_cfg(timm_name)
    url = cfg.url if cfg is not None else None
    if not isinstance(url, str):
        raise UserError(
            f"'{timm_name}' has no reference weights: set `pretrained: false` for it in params.yaml"
        )
    name = url.rsplit("/", 1)[1]
    wanted = re.search(r"-([0-9a-f]{8,})\.", name)
    if wanted is None:
        raise UserError(
            f"reference weights {name} carry no hash in their name: they cannot be trusted"
        )
    file = data_folder() / "weights" / name
    if not file.exists():
        _fetch(url, file, wanted[1])
    if not hashlib.sha256(file.read_bytes()).hexdigest().startswith(wanted[1]):
        raise UserError(
            f"reference weights {file} are damaged: their sha256 does not begin with {wanted[1]}: "
            "delete the file and run again"
        )
    return file


def _fetch(url: str, file: Path, digits: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(file), digits)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"reference weights {file.name} not found: put them into {file.parent} (download of "
            f"{url} failed: {error})"
        ) from error


def load_reference(params: ModelParams, channels: int, classes: int) -> tuple[nn.Module, str]:
    """Return the model with its reference weights, every tensor of which must fit, and
    the name of their file.
    """
    file = reference_file(params.timm)
    args = {"in_chans": channels, "num_classes": classes, **params.args}
    try:
        model = timm.create_model(
            params.timm, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **args
        )
    except (RuntimeError, TypeError, ValueError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"reference weights {file.name} do not fit '{params.timm}' with {params.args}: {reason}"
        ) from error
    return model, file.name
