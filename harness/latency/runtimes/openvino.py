"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.latency.runtimes import Program, Runner
from harness.latency.runtimes._onnx import OfOnnx
from leaderboard.records.params import HardwareParams


class OpenVino(OfOnnx):
    """A model of its own for each size of batch."""

    package: ClassVar[str] = "openvino"

    def load(self, profile: HardwareParams, artefact: Path) -> Program:
        """Compile the model when the size of its batches is known."""
        import openvino

        core = openvino.Core()
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": profile.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }

        def compiled(images: Tensor) -> Runner:
            model = core.read_model(artefact)
            model.reshape(list(images.shape))  # a model of fixed shape is faster
            run = core.compile_model(model, "CPU", settings)
            return lambda batch: torch.from_numpy(run(batch.numpy())[0])

        return compiled
