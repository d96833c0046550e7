"""Hardware profiles of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from leaderboard.records.strict import Strict

ONNX = ("onnxruntime", "openvino")  # runtimes that take ONNX models


class HardwareParams(Strict):
    """A hardware profile: how latency is measured, on whatever machine can serve it; `match`: a part of the name of its processor (cuda: of its GPU)."""

    device: Literal["cpu", "cuda"]
    runtime: Literal["eager", "cuda_graph", "semi_structured", "onnxruntime", "openvino"]
    precision: Literal["fp32", "bf16"] = "fp32"
    match: str = ""
    threads: PositiveInt
    batches: Annotated[list[PositiveInt], Field(min_length=1)]
    rounds: Annotated[int, Field(ge=5)]
    warmup_rounds: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _runtime_runs_on_the_device(self) -> Self:
        if self.runtime == "cuda_graph" and self.device != "cuda":
            raise ValueError("runtime cuda_graph runs on device cuda")
        if self.runtime == "semi_structured" and (self.device, self.precision) != ("cuda", "bf16"):
            raise ValueError("runtime semi_structured runs on device cuda in precision bf16")
        if self.runtime in ONNX and (self.device, self.precision) != ("cpu", "fp32"):
            raise ValueError(f"runtime {self.runtime} is measured on device cpu in precision fp32 (8-bit layers run on integers whatever it says)")
        return self

    @property
    def as_evaluated(self) -> bool:
        """Say whether artefacts run as they did when their predictions were recorded."""
        return (self.device, self.runtime, self.precision) == ("cpu", "eager", "fp32")

    @property
    def sparse(self) -> bool:
        """Say whether the runtime has a kernel for weights with two zeros in every four."""
        return self.runtime == "semi_structured"

    @property
    def onnx(self) -> bool:
        """Say whether the runtime takes ONNX models."""
        return self.runtime in ONNX
