"""PyTorch by replaying a CUDA graph: all kernels of a call are launched at once."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from harness.latency.runtimes import Program, Runner, Runtime
from harness.latency.runtimes.eager import called
from harness.point import store
from leaderboard.records.params import HardwareParams


class CudaGraph(Runtime):
    """The program captured once for each size of batch."""

    serves: ClassVar[frozenset[tuple[str, str]]] = frozenset({("cuda", "fp32"), ("cuda", "bf16")})
    place: ClassVar[str] = "runs on device cuda"

    def load(self, profile: HardwareParams, artefact: Path) -> Program:
        """Read the program; it is captured when the size of its batches is known."""
        eager = called(profile, store.read(artefact).on(torch.device(profile.device)))
        return lambda images: replayed(eager(images), images)


def replayed(eager: Runner, images: Tensor) -> Runner:
    """Return `eager` captured as a CUDA graph for batches of the size of `images`."""
    place = images.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # warm up aside, as torch asks for
        for _ in range(3):
            eager(place)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = eager(place)

    def run(images: Tensor) -> Tensor:
        place.copy_(images)
        graph.replay()
        return logits

    return run
