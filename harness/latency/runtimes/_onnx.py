"""What runtimes that take ONNX models have in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from harness.latency.onnx_files import exported
from harness.latency.runtimes import Runtime, not_installed
from harness.run.paths import Paths
from leaderboard.records import files
from leaderboard.records.params import HardwareParams, Params

ROUND = "torch.ops.aten.round.default"  # in a program that rounds activations


class OfOnnx(Runtime):
    """A runtime that takes an artefact as its ONNX model; `package` must be said."""

    serves: ClassVar[frozenset[tuple[str, str]]] = frozenset({("cpu", "fp32")})
    place: ClassVar[str] = (
        "is measured on device cpu in precision fp32 (8-bit layers run on integers whatever it "
        "says)"
    )
    package: ClassVar[str]

    def lacks(self, profile: HardwareParams) -> str | None:
        """ONNX models are made by onnxscript."""
        return not_installed("onnxscript", self.package)

    def prepare(self, folder: Path, image: Tensor) -> Path:
        """Export one artefact, in this process."""
        # here, for it needs what a machine may lack
        from harness.latency.onnx_export import to_onnx

        files.write_bytes(folder / "model.onnx", to_onnx(folder, image))
        return folder / "model.onnx"

    def prepare_track(
        self, params: Params, paths: Paths, track: str, folders: Mapping[Path, str]
    ) -> dict[Path, Path | str]:
        """Export what is not exported yet, in workers."""
        models = exported(params, paths, track, folders)
        return {
            folder: model if isinstance(model, Path) else f"not exported to ONNX: {model}"
            for folder, model in models.items()
        }

    def alone(self, folder: Path, operators: Collection[str]) -> bool:
        """Where activations are rounded, the runtime has kernels for integers, and
        which of them it takes depends on the weights.
        """
        return ROUND in operators
