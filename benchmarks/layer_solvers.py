"""Seconds that our layer-wise solvers take for one layer, beside the published
algorithms written down step by step.

`python benchmarks/layer_solvers.py` takes some minutes, `-k gptq` less; `python -m
pytest benchmarks/layer_solvers.py --benchmark-enable --benchmark-only` adds
pytest-benchmark's own tables. One layer is what is timed: from 1,024 input rows and a
weight (outputs, inputs) to the compressed weight. The other side is our plain reading,
in torch and float32, of what the papers' released code does, in its order:
IST-DASLab/gptq and IST-DASLab/sparsegpt (moments, three factorisations, columns one by
one with a quantiser or a mask, lazy updates of the blocks that follow), locuslab/wanda
(a row sorted as a whole) and, for AdaRound, yhhhli/BRECQ (autograd through the soft
rounding; 20 steps of 1,024 rows are timed instead of thousands). Both sides have one
thread and the same grids (min-max, asymmetric), and take turns: a ratio is the median
of theirs over ours in the same round, more than 1 means that ours is faster. Seconds
are those of the processor, which other load on the machine moves less. Results are
compared as well: the mean squared error of the layer's output may be larger than theirs
by 1 %.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import pytest
import torch
from tabulate import tabulate
from torch import Tensor, nn

from methods.adaround import Learning, Range, adaround
from methods.parts.network.gram import moments, norms
from methods.parts.pruning.row_masks import wanda_mask
from methods.parts.quantization.gptq import gptq
from methods.parts.quantization.quantize import Rule, asymmetric, minmax
from methods.sparsegpt import sparsegpt

SHAPES = [(768, 768), (3072, 768), (768, 3072)]  # outputs, inputs
ROWS, SPARSITY, BITS, BLOCK, DAMP = 1024, 0.5, 4, 128, 0.01
ROUNDS = 5
LOSS = 1.01  # of theirs, at most
STEPS, RATE, STRENGTH = 20, 0.02, 0.01  # of AdaRound

Solver = Callable[[nn.Linear, Tensor], Tensor]


# ours


def our_gptq(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return the rounded weight as methods/gptq.py finds it."""
    how = Rule(BITS, layer.in_features, partial(minmax, asymmetric))
    return gptq(layer.weight, moments(layer, {"": layer}, x)[""], how, DAMP).decode(
        layer.weight.shape
    )


def our_sparsegpt(layer: nn.Linear, x: Tensor, m: int | None = None) -> Tensor:
    """Return the pruned weight as methods/sparsegpt.py finds it."""
    return sparsegpt(layer.weight, moments(layer, {"": layer}, x)[""], SPARSITY, m, DAMP)


def our_wanda(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return the pruned weight as methods/wanda.py finds it."""
    return layer.weight.detach().masked_fill(
        wanda_mask(layer.weight.detach(), norms(layer, {"": layer}, x)[""], SPARSITY), 0
    )


def our_adaround(layer: nn.Linear, x: Tensor, f: Range = (-inf, inf)) -> Tensor:
    """Return the rounded weight as methods/adaround.py learns it in a few steps."""
    W, rows = layer.weight.detach(), x.flatten(0, 1)
    how = Rule(BITS, layer.in_features, partial(minmax, asymmetric))
    return adaround(
        W, torch.zeros(len(W)), rows, rows @ W.T, f, how, Learning(STEPS, RATE, STRENGTH)
    ).decode(W.shape)


# the published algorithms


class Quantiser:
    """Asymmetric min-max grids, one per output channel."""

    def __init__(self, W: Tensor, bits: int) -> None:
        none = torch.zeros(len(W))
        low, high = torch.minimum(W.min(1).values, none), torch.maximum(W.max(1).values, none)
        self.top = 2**bits - 1
        self.scale = ((high - low) / self.top)[:, None]
        self.zero = torch.round(-low[:, None] / self.scale)

    def __call__(self, w: Tensor) -> Tensor:
        q = torch.clamp(torch.round(w / self.scale) + self.zero, 0, self.top)
        return self.scale * (q - self.zero)


def second_moment(x: Tensor) -> Tensor:
    """Return 2/N sum x x^T, added up as a running average that is here of one batch."""
    rows = x.reshape(-1, x.shape[-1]).t()
    H = torch.zeros(len(rows), len(rows))
    H *= 0 / rows.shape[1]
    scaled = (2 / rows.shape[1]) ** 0.5 * rows.float()
    H += scaled.matmul(scaled.t())
    return H


def inverse_factor(H: Tensor, W: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of the damped H; silence the
    weights of inputs that are always 0.
    """
    dead = torch.diag(H) == 0
    H[dead, dead] = 1
    W[:, dead] = 0
    diagonal = torch.arange(len(H))
    H[diagonal, diagonal] += DAMP * torch.mean(torch.diag(H))
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)


def their_gptq(layer: nn.Linear, x: Tensor) -> Tensor:
    """Quantise column by column, blocks of 128 columns updating the rest at once
    (`fasterquant`).
    """
    W = layer.weight.detach().clone().float()
    quantiser = Quantiser(W, BITS)
    U = inverse_factor(second_moment(x), W)
    losses, Q = torch.zeros_like(W), torch.zeros_like(W)
    for start in range(0, W.shape[1], BLOCK):
        end = min(start + BLOCK, W.shape[1])
        block = W[:, start:end].clone()
        done, errors, costs = (
            torch.zeros_like(block),
            torch.zeros_like(block),
            torch.zeros_like(block),
        )
        inner = U[start:end, start:end]
        for i in range(end - start):
            w, d = block[:, i], inner[i, i]
            q = quantiser(w.unsqueeze(1)).flatten()
            done[:, i] = q
            costs[:, i] = (w - q) ** 2 / d**2
            error = (w - q) / d
            block[:, i:] -= error.unsqueeze(1).matmul(inner[i, i:].unsqueeze(0))
            errors[:, i] = error
        Q[:, start:end] = done
        losses[:, start:end] = costs / 2
        W[:, end:] -= errors.matmul(U[start:end, end:])
    return Q


def their_sparsegpt(layer: nn.Linear, x: Tensor, m: int | None = None) -> Tensor:
    """Zero column by column what is cheapest in blocks of 128 columns, or half of each
    m when they are reached (`fasterprune`).
    """
    W = layer.weight.detach().clone().float()
    U = inverse_factor(second_moment(x), W)
    losses = torch.zeros(len(W))
    for start in range(0, W.shape[1], BLOCK):
        end = min(start + BLOCK, W.shape[1])
        block = W[:, start:end].clone()
        done, errors, costs = (
            torch.zeros_like(block),
            torch.zeros_like(block),
            torch.zeros_like(block),
        )
        inner = U[start:end, start:end]
        if m is None:
            score = block**2 / torch.diag(inner).reshape(1, -1) ** 2
            mask = score < torch.sort(score.flatten()).values[int(score.numel() * SPARSITY)]
        else:
            mask = torch.zeros_like(block, dtype=torch.bool)
        for i in range(end - start):
            w, d = block[:, i], inner[i, i]
            if m is not None and i % m == 0:
                score = block[:, i : i + m] ** 2 / torch.diag(inner)[i : i + m].reshape(1, -1) ** 2
                mask.scatter_(1, i + torch.topk(score, m // 2, dim=1, largest=False).indices, True)
            q = w.clone()
            q[mask[:, i]] = 0
            done[:, i] = q
            costs[:, i] = (w - q) ** 2 / d**2
            error = (w - q) / d
            block[:, i:] -= error.unsqueeze(1).matmul(inner[i, i:].unsqueeze(0))
            errors[:, i] = error
        W[:, start:end] = done
        losses += torch.sum(costs, 1) / 2
        W[:, end:] -= errors.matmul(U[start:end, end:])
    return W


def their_wanda(layer: nn.Linear, x: Tensor) -> Tensor:
    """Zero half of each row of weight times input norm, sorted."""
    W = layer.weight.detach().clone()
    rows = x.reshape(-1, x.shape[-1]).t()
    scaler = torch.zeros(len(rows))
    scaler *= 0 / rows.shape[1]
    scaler += torch.norm(rows.float(), p=2, dim=1) ** 2 / rows.shape[1]
    metric = torch.abs(W) * torch.sqrt(scaler.reshape(1, -1))
    mask = torch.zeros_like(metric) == 1
    mask.scatter_(
        1,
        torch.sort(metric, dim=-1, stable=True).indices[:, : int(metric.shape[1] * SPARSITY)],
        True,
    )
    W[mask] = 0
    return W


@torch.enable_grad()
def their_adaround(layer: nn.Linear, x: Tensor, f: Range = (-inf, inf)) -> Tensor:
    """Learn whether each weight is rounded down or up, by autograd."""
    W, rows = layer.weight.detach(), x.flatten(0, 1)
    quantiser = Quantiser(W, BITS)
    down = torch.floor(W / quantiser.scale)
    target = (rows @ W.T).clamp(*f)
    V = nn.Parameter(-torch.log(1.2 / (W / quantiser.scale - down + 0.1) - 1))
    optimiser = torch.optim.Adam([V], RATE)
    for step in range(1, STEPS + 1):
        optimiser.zero_grad()
        h = torch.clamp(torch.sigmoid(V) * 1.2 - 0.1, 0, 1)
        soft = (
            torch.clamp(down + h + quantiser.zero, 0, quantiser.top) - quantiser.zero
        ) * quantiser.scale
        loss = ((rows @ soft.T).clamp(*f) - target).abs().pow(2).sum(1).mean()
        if step >= 0.2 * STEPS:
            beta = 2 + 18 * max(0.0, 1 - (step - 0.2 * STEPS) / (0.8 * STEPS))
            loss = loss + STRENGTH * (1 - ((h - 0.5).abs() * 2).pow(beta)).sum()
        loss.backward()
        optimiser.step()
    return (
        torch.clamp(down + (V >= 0).float() + quantiser.zero, 0, quantiser.top) - quantiser.zero
    ) * quantiser.scale


@dataclass(frozen=True)
class Pair:
    """Our solver of a layer and the published one."""

    ours: Solver
    theirs: Solver


PAIRS = {
    "gptq": Pair(our_gptq, their_gptq),
    "sparsegpt": Pair(our_sparsegpt, their_sparsegpt),
    "sparsegpt 2:4": Pair(partial(our_sparsegpt, m=4), partial(their_sparsegpt, m=4)),
    "wanda": Pair(our_wanda, their_wanda),
    "adaround": Pair(our_adaround, their_adaround),
    "adaround, ReLU": Pair(partial(our_adaround, f=(0, inf)), partial(their_adaround, f=(0, inf))),
}


def layer_and_inputs(shape: tuple[int, int]) -> tuple[nn.Linear, Tensor]:
    """Return a seeded layer and (8, 128, inputs) tokens with correlated, uneven
    features.
    """
    torch.manual_seed(0)
    outputs, inputs = shape
    mix = torch.eye(inputs) + torch.randn(inputs, inputs) / inputs**0.5
    return nn.Linear(inputs, outputs, bias=False), (torch.randn(ROWS, inputs).relu() @ mix).view(
        8, ROWS // 8, inputs
    )


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("name", PAIRS)
@torch.no_grad()
def test_ours_is_as_fast_and_as_good(
    name: str,
    shape: tuple[int, int],
    benchmark: Any,
    record_property: Callable[[str, object], None],
) -> None:
    torch.set_num_threads(1)
    pair, (layer, x) = PAIRS[name], layer_and_inputs(shape)
    seconds: list[float] = []

    def time_theirs() -> None:
        start = time.process_time()
        pair.theirs(layer, x)
        seconds.append(time.process_time() - start)

    found = benchmark.pedantic(
        pair.ours, (layer, x), setup=time_theirs, rounds=ROUNDS, warmup_rounds=1
    )
    ours, theirs = benchmark.stats.stats.data, seconds[-ROUNDS:]
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    losses = [float((layer(x) - x @ W.T).square().mean()) for W in (found, pair.theirs(layer, x))]
    row = (
        name,
        "x".join(map(str, shape)),
        *map(statistics.median, (ours, theirs, ratios)),
        min(ratios),
        losses[0] / losses[1],
    )
    record_property("row", row)
    assert losses[0] <= LOSS * losses[1], "our result is worse"
    assert statistics.median(ratios) >= 1, "ours is slower"


class Rows:
    """A pytest plugin that keeps the rows of the table."""

    def __init__(self) -> None:
        self.found: list[object] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.found += [value for name, value in report.user_properties if name == "row"]


def main() -> int:
    """Run the benchmark and print its table."""
    rows = Rows()
    options = [
        "-q",
        "-o",
        "addopts=",
        "-W",
        "ignore",
        "-p",
        "no:cacheprovider",
        "--benchmark-disable-gc",
        "--benchmark-columns=median",
    ]
    code = pytest.main([__file__, *options, *sys.argv[1:]], plugins=[rows])
    headers = ("solver", "outputs x inputs", "ours s", "theirs s", "ratio", "least", "loss ratio")
    print(tabulate(rows.found, headers, floatfmt=("", "", ".3f", ".3f", ".2f", ".2f", ".4f")))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
