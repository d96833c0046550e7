"""Weights with two zeros in every four neighbours (2:4), which sparse tensor cores
multiply at twice the rate: found on disk, and handed to torch's kernels.

Mishra et al. 2021, arXiv 2104.08378; torch.sparse.to_sparse_semi_structured, whose
kernels take bfloat16 matrices of 32 n rows and 64 n columns.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.latency.runtimes import Program, Runtime
from harness.latency.runtimes.eager import called
from harness.point import store
from leaderboard.records.params import HardwareParams

ROWS, COLUMNS = 32, 64


class SemiStructured(Runtime):
    """PyTorch eagerly, with sparse weights wherever they fit."""

    serves: ClassVar[frozenset[tuple[str, str]]] = frozenset({("cuda", "bf16")})
    place: ClassVar[str] = "runs on device cuda in precision bf16"
    zeros: ClassVar[str | None] = "2:4"

    def alone(self, folder: Path, operators: Collection[str]) -> bool:
        """Which layers are sparse depends on the weights."""
        return has_fitting(folder)

    def load(self, profile: HardwareParams, artefact: Path) -> Program:
        """Read the program and hand its weights to the kernels."""
        return called(
            profile, with_sparse_weights(store.read(artefact).on(torch.device(profile.device)))
        )


def fits(weight: Tensor) -> bool:
    """Say whether the kernels take `weight` (rows, columns): at most two of every four
    neighbours in a row are not zero.
    """
    if weight.ndim != 2 or weight.shape[0] % ROWS or weight.shape[1] % COLUMNS:
        return False
    return bool((weight.reshape(-1, 4) != 0).sum(1).max() <= 2)


def has_fitting(folder: Path) -> bool:
    """Say whether any weight of the artefact in `folder` fits."""
    return any(fits(tensor) for tensor in store.read_weights(folder).tensors.values())


def with_sparse_weights(program: nn.Module) -> nn.Module:
    """Return `program`, on a GPU, with every linear layer's weight that fits as a
    sparse bfloat16 matrix; the layer runs under autocast.
    """
    assert isinstance(program, torch.fx.GraphModule)
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default):
        owner, _, name = node.args[1].target.rpartition(".")
        weight = program.get_parameter(node.args[1].target)
        if fits(weight):
            sparse = torch.sparse.to_sparse_semi_structured(weight.detach().to(torch.bfloat16))
            setattr(program.get_submodule(owner), name, nn.Parameter(sparse, requires_grad=False))
    return program
