"""What a program file may hold: torch's loader runs what it finds in one (pickles,
compiled code, text), so a file is looked through before it is loaded.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import torch

from harness.point.program_text import refuse_code

TENSORS = re.compile(r"(weights/weight|constants/tensor)_\d+")
CONFIG = re.compile(r"(weights|constants)/\w+_config\.json")
INPUTS = re.compile(r"sample_inputs/\w+\.pt")
TEXT = "models/model.json"
LABELS = {
    "archive_format",
    "archive_version",
    "byteorder",
    ".data/version",
    ".data/serialization_id",
}


def refuse_pickles(program: Path | io.BytesIO) -> None:
    """Raise ValueError if `program` (.pt2) holds anything but plain tensors and the
    text of a graph over them, or compressed entries.

    torch writes nothing else for models of tensors alone.
    """
    with ZipFile(program) as archive:
        twice = [name for name, count in Counter(archive.namelist()).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]} stands in it twice")
        for entry in archive.infolist():
            if entry.compress_type != ZIP_STORED:
                raise ValueError(f"{entry.filename} is compressed, which torch.export never does")
            _refuse_entry(archive, entry)


def _refuse_entry(archive: ZipFile, entry: ZipInfo) -> None:
    path = entry.filename.partition("/")[2]
    name = path.removeprefix("data/")
    if path == TEXT:
        refuse_code(archive.read(entry))
    elif CONFIG.fullmatch(name):
        _refuse_pickled_tensors(name, json.loads(archive.read(entry)))
    elif INPUTS.fullmatch(name):
        _refuse_objects(name, archive.read(entry))
    elif not TENSORS.fullmatch(name) and path not in LABELS:
        raise ValueError(f"{name} is neither a tensor nor what describes them")


def _refuse_pickled_tensors(name: str, config: dict[str, dict[str, dict[str, object]]]) -> None:
    """Refuse objects named beside tensors: by their flag, or by a file name, which
    alone decides it for constants.
    """
    folder = name.partition("/")[0]
    try:
        plain = all(
            about["use_pickle"] is False and TENSORS.fullmatch(f"{folder}/{about['path_name']}")
            for about in config["config"].values()
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{name} does not describe tensors") from error
    if not plain:
        raise ValueError(f"{name} names pickled objects")


def _refuse_objects(name: str, content: bytes) -> None:
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # whatever torch's reader says of foreign bytes
        raise ValueError(f"{name} holds more than tensors") from error
