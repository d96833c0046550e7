"""PyTorch, operator by operator, as artefacts are evaluated; bf16 is autocast."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from harness.latency.runtimes import Program, Runtime
from harness.point import store
from leaderboard.records.params import HardwareParams


class Eager(Runtime):
    """The program as it is stored, on the CPU or a GPU."""

    def as_evaluated(self, profile: HardwareParams) -> bool:
        """On the CPU in fp32 it is the very evaluation."""
        return (profile.device, profile.precision) == ("cpu", "fp32")

    def load(self, profile: HardwareParams, artefact: Path) -> Program:
        """Read the program."""
        return called(profile, store.read(artefact).on(torch.device(profile.device)))


def called(profile: HardwareParams, module: nn.Module) -> Program:
    """Return `module`, called in the profile's precision."""

    def run(images: Tensor) -> Tensor:
        with torch.autocast(profile.device, torch.bfloat16):
            logits: Tensor = module(images)
        return logits

    return lambda _images: run if profile.precision == "bf16" else module
