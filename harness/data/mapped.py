"""Safetensors files that may be larger than memory: written from tensors that are
themselves mapped from files. They are read by the library, which maps them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leaderboard.records import files
from leaderboard.records.errors import UserError

# https://github.com/huggingface/safetensors#format
DTYPES = {torch.uint8: "U8", torch.float32: "F32", torch.int64: "I64"}
ALIGNED = 8  # bytes, to which the header is filled up


def mapped(file: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Return an array uint8 of `shape` that lies in a new file; raise UserError if the
    disk has no room for all of it.
    """
    try:
        array = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        with file.open("r+b") as held:
            # or a full disk would end the process where it writes
            os.posix_fallocate(held.fileno(), 0, file.stat().st_size)
    except OSError as error:
        raise UserError(
            f"cannot write {file}: {error.strerror or error}: free space, then run again"
        ) from error
    return array


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as a safetensors file, one after another and none of them copied
    whole; raise UserError if the disk refuses.
    """
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    header, end = dict[str, object](), 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNED)
    with files.replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:
            tensor.contiguous().numpy().tofile(file)
