"""The device that a track's models are trained, compressed and evaluated on."""

from __future__ import annotations

import random

import numpy as np
import torch

from leaderboard.records.errors import UserError


def require(device: str) -> None:
    """Raise UserError if this machine lacks `device`, before anything is begun."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "the track asks for device 'cuda' and torch finds none here: run it on a machine with "
            "a GPU"
        )


def seeded(device: str, seed: int) -> torch.device:
    """Seed every generator of this process, make it use one thread and repeatable
    float32 kernels, and return the device.

    On CUDA, cuDNN is held to deterministic algorithms, and float32 is not cut down to
    TF32, so that a model evaluates there as it does on a CPU.
    """
    torch.set_num_threads(1)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    return torch.device(device)
