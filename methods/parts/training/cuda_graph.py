"""Forward and backward pass as a CUDA graph, so that small models on a large device do
not wait for the launch of each of their kernels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Step = Callable[[Tensor, Tensor], None]
WARM = 3  # runs before the capture, in which libraries choose their kernels


def captured(step: Step, model: nn.Module) -> Step:
    """Return `step(images, labels)`, which leaves gradients in `model`, to be replayed
    as a CUDA graph; `step` itself where `model` is on no CUDA device.

    The graph is captured at the first call and wants images of one shape from then on.
    Nothing but gradients changes by capturing it: what the warm runs did to buffers
    (BatchNorm's statistics) is undone.
    """
    if next(model.parameters()).device.type != "cuda":
        return step
    return _Graph(step, model)


class _Graph:
    """A step with its graph, its input buffers and the gradients it writes to, once
    captured.
    """

    def __init__(self, step: Step, model: nn.Module) -> None:
        self.step, self.model = step, model
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        if self.graph is None:
            self._capture(images, labels)
        self.images.copy_(images)
        self.labels.copy_(labels)
        assert self.graph is not None
        self.graph.replay()

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.clone(), labels.clone()
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                self.step(self.images, self.labels)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step(self.images, self.labels)
        for name, buffer in self.model.named_buffers():
            buffer.copy_(buffers[name])
