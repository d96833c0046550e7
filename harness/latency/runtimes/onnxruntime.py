"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from harness.latency.runtimes import Program
from harness.latency.runtimes._onnx import OfOnnx
from leaderboard.records.params import HardwareParams


class OnnxRuntime(OfOnnx):
    """One session for batches of any size."""

    package: ClassVar[str] = "onnxruntime"

    def load(self, profile: HardwareParams, artefact: Path) -> Program:
        """Start a session."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = profile.threads, 1
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(
            artefact, options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name

        def run(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {name: images.numpy()})[0])

        return lambda _images: run
