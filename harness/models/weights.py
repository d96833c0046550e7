"""The weights of a dense model that the track's recipe does not train: found as a file,
as timm's own or on the Hugging Face hub, checked by hash, and loaded whole.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.error import URLError

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import PYTORCH_WEIGHTS_NAME, SAFETENSORS_SINGLE_FILE
from huggingface_hub.errors import HFValidationError
from timm.models import load_state_dict_from_hf
from torch import nn

from harness.data.folder import FOLDER_VARIABLE, data_folder
from harness.models import checkpoint, register
from harness.models.build import build
from leaderboard.records.errors import UserError, one_line
from leaderboard.records.params import HUB, TIMM, ModelParams

# in the order in which timm asks for them
ON_HUB = (SAFETENSORS_SINGLE_FILE, PYTORCH_WEIGHTS_NAME)


@dataclass(frozen=True)
class Loaded:
    """A model with its weights, what they were and what was done to load them in one
    line, and the sha256 of their file.
    """

    model: nn.Module
    origin: str
    sha256: str


def load(params: ModelParams, channels: int, classes: int) -> Loaded:
    """Return the model with the weights that `params` name, every tensor of which must
    fit.

    Raises UserError if they cannot be had, if their sha256 is not the one that is
    wanted, if their file is damaged or may run code, or if a tensor is missing, is one
    too many or has another shape.
    """
    model, source = build(params, channels, classes), _source(params)
    file = _had(source)
    sha256 = _checked(file, source, params.sha256)
    notes = checkpoint.load(file, model, params, classes)
    said = f" ({'; '.join(notes)})" if notes else ""
    return Loaded(model, f"weights {one_line(source.name)}{said}", sha256)


def source_sha256(params: ModelParams) -> str:
    """Return the sha256 of the file that `load` would read, and nothing where the
    recipe trains or the file is not on this machine.

    Raises UserError if timm has no weights of the model, or if the file cannot be read.
    """
    file = None if params.trained else _source(params).file
    return _sha256(file) if file is not None and _is_there(file) else ""


@dataclass(frozen=True)
class _Source:
    """Weights as records call them, and their file, which need not be there: where it
    is not, it is fetched by its name on the hub or from `url`.

    digits: what its sha256 begins with, as far as its name says so.
    """

    name: str
    file: Path | None
    hub: str = ""
    url: str = ""
    digits: str = ""


def _source(params: ModelParams) -> _Source:
    if params.weights == TIMM:
        return _of_timm(params.timm)
    if params.weights.startswith(HUB):
        return _on_hub(params.weights.removeprefix(HUB))
    file = data_folder() / params.weights
    return _Source(file.name, file)


def _of_timm(name: str) -> _Source:
    """Return the weights of timm's tag: the file that its address names if the data
    folder holds it, else what timm's loader would fetch.
    """
    register()
    try:
        cfg = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UserError(f"timm has no weights of '{name}': {one_line(str(error))}") from error
    url = cfg.url if cfg is not None and isinstance(cfg.url, str) else ""
    hub = (cfg.hf_hub_id if cfg is not None else None) or ""
    if not url and not hub:
        raise UserError(
            f"timm has no weights of '{name}': leave out `weights: timm` for it in params.yaml, or "
            "name a file there"
        )
    file = data_folder() / "weights" / url.rsplit("/", 1)[-1]
    if hub and not (url and _is_there(file)):
        return _on_hub(hub)
    digits = re.search(r"-([0-9a-f]{8,})\.", file.name)  # as torch.hub has it
    return _Source(file.name, file, url=url, digits=digits[1] if digits else "")


def _on_hub(name: str) -> _Source:
    return _Source(f"{HUB}{name}", _cached(name), hub=name)


def _cached(name: str) -> Path | None:
    """Return the file of a model of the hub that was fetched before."""
    owner_and_name, _, revision = name.partition("@")
    try:
        files = [
            try_to_load_from_cache(owner_and_name, file, revision=revision or None)
            for file in ON_HUB
        ]
    except HFValidationError:  # which the hub would say as well
        return None
    return next((Path(file) for file in files if isinstance(file, str)), None)


def _had(source: _Source) -> Path:
    """Return the file of the weights, fetched if need be."""
    if source.file is None or source.hub:
        return _from_hub(source.hub)
    if _is_there(source.file):
        return source.file
    if not source.url:
        raise UserError(
            f"no weights {source.file}: put the file there or correct `weights`, which is recipe, "
            f"timm, {HUB}OWNER/NAME or a file, looked for from the folder that {FOLDER_VARIABLE} "
            "names"
        )
    _fetch(source.url, source.file, source.digits)
    return source.file


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name that no disk takes, or a folder that may not be looked into
        return False


def _fetch(url: str, file: Path, digits: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), digits or None)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"weights {file.name} not found: put them into {file.parent} (download of {url} "
            f"failed: {one_line(str(error))[:160]})"
        ) from error


def _from_hub(name: str) -> Path:
    """Let timm's loader fetch a model of the hub into its cache, and return the file."""
    reason = f"it has none of {', '.join(ON_HUB)}"
    try:
        load_state_dict_from_hf(name)
    except Exception as error:  # the network's, the hub's, or a damaged file's
        reason = one_line(str(error))[:160]
    file = _cached(name)
    if file is None:
        raise UserError(
            f"weights {HUB}{name} cannot be had ({reason}): mend the name or the connection, or "
            "name a file by `weights`"
        )
    return file


def _checked(file: Path, source: _Source, pinned: str) -> str:
    """Return the sha256 of a file; raise UserError if it is not the one wanted."""
    found = _sha256(file)
    if not found.startswith(source.digits):
        raise UserError(
            f"weights {file} are damaged: their sha256 does not begin with {source.digits}: delete "
            "the file and run again"
        )
    if not found.startswith(pinned):
        raise UserError(
            f"weights {source.name} are not the file that `sha256` pins: its digits are {pinned}, "
            f"found {found}: put the right file there or correct `sha256`"
        )
    return found


def _sha256(file: Path) -> str:
    try:
        about = file.stat()
        return _digest(file, about.st_size, about.st_mtime_ns)
    except OSError as error:
        raise UserError(
            f"weights {file} cannot be read: {error.strerror}: mend that and run again"
        ) from error


@cache
def _digest(file: Path, _size: int, _mtime_ns: int) -> str:
    """Hash a file once a process, and again if it was changed."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
