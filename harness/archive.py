"""What a program file may hold: torch's loader runs pickles that it finds in one, so a file is looked through before it is loaded."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import torch


def refuse_pickles(program: Path) -> None:
    """Raise ValueError if `program` (.pt2) holds pickled objects or compressed entries; torch writes neither for models of tensors alone."""
    with ZipFile(program) as archive:
        for entry in archive.infolist():
            if entry.compress_type != ZIP_STORED:
                raise ValueError(f"{entry.filename} is compressed, which torch.export never does")
            if entry.filename.endswith("_config.json"):
                _refuse_pickled_tensors(entry.filename, json.loads(archive.read(entry)))
            elif entry.filename.endswith(".pt"):
                _refuse_objects(entry.filename, archive.read(entry))


def _refuse_pickled_tensors(name: str, config: object) -> None:
    tensors = config.get("config", {}) if isinstance(config, dict) else {}
    if any(not isinstance(about, dict) or about.get("use_pickle", True) for about in tensors.values()):
        raise ValueError(f"{name} names pickled objects")


def _refuse_objects(name: str, content: bytes) -> None:
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{name} holds more than tensors") from error
