"""AdaRound: learn for each weight whether to round it down or up, so that the outputs
of its layer change least.

Nagel, Amjad, van Baalen, Louizos, Blankevoort, "Up or Down? Adaptive Rounding for
Post-Training Quantization", ICML 2020, arXiv 2004.10568.

A weight on a grid of step s and zero point z, with codes 0 to top, is rounded down plus
a learned part h between 0 (down) and 1 (up):

    W~ = s (clip(floor(W / s) + h + z, 0, top) - z),

    h = clip(1.2 sigmoid(V) - 0.1, 0, 1).

V holds one number per weight and starts where W~ = W. Layer by layer, V minimises

    |f(T) - f(W~ X)|^2 + lambda sum(1 - |2 h - 1|^beta);

in the end h is rounded. The first term is summed over channels and averaged over the
rows of the layer's input. The second drives every h to 0 or 1: lambda is 0 in the first
fifth of the steps, and beta falls linearly from 20 to 2.

X is what the layer gets from the layers before it as they are by then rounded, T is
what it gives in the dense model, and f is the ReLU or ReLU6 right behind it, if there
is one.

Only weights are rounded; batch norms are folded first. The grids are those of RTN
(`methods.parts.quantization.quantize`), so that the rounding is all that differs.

Arguments:
    bits: width of the codes of all Conv2d and Linear except stem, classifier and
        depth-wise convolutions, which are rounded to nearest in 8 bits; 32 leaves the
        model as it is
    steps: steps of Adam taken for each layer
    rate: Adam's learning rate
    strength: lambda, the weight of the second term, which drives every h to 0 or 1; 0
        leaves the term out

Assumed:
    - Deviation: 1,000 steps of Adam at rate 0.02 instead of 10,000 at 0.001.
    - The rows of a convolution are its unfolded windows.
    - At most 16,384 rows are used, evenly spread over images and positions.
    - Without f, a step takes all of these rows; it is exact, through X X^T and T X^T.
      With f, or in a layer of more than 2,048 columns, it takes 1,024 of them in turn.
      The paper draws 32 images for a step.
    - Nothing is random.

Checked against:
    - github.com/yhhhli/BRECQ at e455d62, its AdaRoundQuantizer and LossFunction with
      torch.optim.Adam on the same weights, grids, inputs of a rounded prefix and
      targets: a Linear and a strided convolution at 2, 3 and 4 bits, with and without
      ReLU, 500 steps. Every decision is equal in 11 of the 12 cases; in the twelfth 8
      of 4,608 differ (float32 sums in another order).
    - The same code once with 10,000 steps at rate 0.001: all decisions equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from math import ceil, gcd, inf
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from methods import Codes, Data, Method, store_as_codes
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import Layer, prunable, visit_inputs, weighted
from methods.parts.network.walk import BATCH, stages
from methods.parts.quantization.quantize import KEEP, Rule, as_codes, round_to_nearest, rules

ZETA, GAMMA = 1.1, -0.1
ROWS, TAKEN = 16384, 1024  # rows kept of a layer's inputs, and of these taken in one step
Range = tuple[float, float]
ACTIVATIONS: Mapping[type[nn.Module], Range] = {nn.ReLU: (0, inf), nn.ReLU6: (0, 6)}
Gradient = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Learning:
    """`steps` of Adam at `rate`, with lambda = `strength`."""

    steps: int
    rate: float
    strength: float

    def beta(self, step: int) -> float | None:
        """Return the exponent of the regulariser at `step` = 1, 2, .. steps, or None in
        the first fifth, when there is none.
        """
        start = 0.2 * self.steps
        return None if step < start else 20 - 18 * (step - start) / (self.steps - start)


def all_rows(X: Tensor, T: Tensor) -> Gradient:
    """Return the gradient of |T - X W~^T|^2 / N by W~ over all N rows of X (N, n) and T
    (N, O): 2/N (W~ X^T X - T^T X).
    """
    XX, TX = 2 / len(X) * X.T @ X, -2 / len(X) * T.T @ X
    return lambda W, _step: torch.addmm(TX, W, XX)


def rows_in_turn(X: Tensor, T: Tensor, b: Tensor, f: Range) -> Gradient:
    """Return the gradient of |f(T) - f(X W~^T + b)|^2 / N by W~, for f(y) = clip(y,
    *f), over N = 1,024 of the rows of X (rows, n) and T (rows, O) a step.
    """
    taken = min(TAKEN, len(X))
    count = len(X) // taken
    Xs, Ts = (
        rows[: count * taken].view(taken, count, -1).transpose(0, 1).contiguous()
        for rows in (X, T.clamp(*f))
    )

    def gradient(W: Tensor, step: int) -> Tensor:
        x = Xs[step % count]
        y = torch.addmm(b, x, W.T)
        z = y.clamp(*f)
        return (z - Ts[step % count]).mul_(y == z).mul_(2 / taken).T @ x

    return gradient


def start(fraction: Tensor) -> Tensor:
    """Return the V at which h is `fraction` in [0, 1): the soft weights start as the
    weights were.
    """
    return -torch.log((ZETA - GAMMA) / (fraction - GAMMA) - 1)


def adaround(
    W: Tensor, b: Tensor, X: Tensor, T: Tensor, f: Range, rule: Rule, how: Learning
) -> Codes:
    """Return codes of `W` (O, n) with bias `b` (O,) for input rows X (N, n) and outputs
    T (N, O), before f, that they should have given.
    """
    grids = [rule.fit(part, rule.bits) for part in W.split(rule.group, 1)]
    s, z = (
        torch.cat(parts, 1).repeat_interleave(rule.group, 1)[:, : W.shape[1]]
        for parts in zip(*((grid.scale, grid.zero) for grid in grids), strict=True)
    )
    top, whole_part = grids[0].top, (W / s).floor()
    low, V = whole_part + z, start(W / s - whole_part)
    # W~ = fixed + free h: beyond the ends of the grid the code is 0 or top whatever h
    free = s * ((low >= 0) & (low < top))
    fixed = s * (low.clamp(0, top) - z)
    gradient = (
        all_rows(X, T - b)
        if f == (-inf, inf) and W.shape[1] <= 2 * TAKEN
        else rows_in_turn(X, T, b, f)
    )
    V.grad = torch.empty_like(V)
    adam = torch.optim.Adam([V], how.rate, fused=True)
    for step in range(1, how.steps + 1):
        sigma = V.sigmoid()
        rising = torch.add(GAMMA, sigma, alpha=ZETA - GAMMA)
        h = rising.clamp(0, 1)
        slope = gradient(torch.addcmul(fixed, free, h), step).mul_(free)  # d loss / d h
        if (beta := how.beta(step)) is not None:
            u = h.mul(2).sub_(1)
            slope.sub_(u.abs().pow_(beta - 1).copysign_(u), alpha=2 * how.strength * beta)
        torch.mul(slope, (ZETA - GAMMA) * sigma * (1 - sigma) * (rising == h), out=V.grad)
        adam.step()
    return as_codes((low + (V >= 0)).clamp(0, top), grids, rule)


def spread(count: int, total: int) -> Tensor:
    """Return `count` different ones of range(`total`) in steps of the golden ratio: any
    run of them is spread evenly over all.
    """
    step = next(
        step for step in range(int(0.618034 * total) + 1, 2 * total + 1) if gcd(step, total) == 1
    )
    return torch.arange(count) * step % total


def input_rows(module: nn.Module, layers: Mapping[str, Layer], inputs: Tensor) -> dict[str, Tensor]:
    """Return about `ROWS` input rows of each of `layers` when `module` runs on
    `inputs`, the same ones whatever its weights.
    """
    most = ROWS // ceil(len(inputs) / BATCH)
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    visit_inputs(
        module,
        layers,
        inputs,
        lambda name, rows: found[name].append(rows[spread(min(most, len(rows)), len(rows))]),
    )
    return {name: torch.cat(rows) for name, rows in found.items()}


@torch.no_grad()
def activations(model: nn.Module, layers: Mapping[str, Layer], image: Tensor) -> dict[str, Range]:
    """Return, for each of `layers`, the range that a ReLU or ReLU6 applied to its very
    output lets through, else (-inf, inf).
    """
    found: dict[str, Range] = dict.fromkeys(layers, (-inf, inf))
    made: list[tuple[Tensor, int, str]] = []  # an addition in place changes the version

    def taken(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        for output, version, name in made:
            if output is args[0] and output._version == version:
                found[name] = ACTIVATIONS[type(module)]

    handles = [
        layer.register_forward_hook(
            lambda _m, _args, y, name=name: made.append((y, y._version, name))
        )
        for name, layer in layers.items()
    ]
    handles += [
        module.register_forward_pre_hook(taken)
        for module in model.modules()
        if type(module) in ACTIVATIONS
    ]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


@dataclass(frozen=True)
class AdaRound(Method):
    """Round to grids of 2^`bits` points, up or down as `steps` steps of Adam at rate
    `rate` and regularisation `strength` say.
    """

    bits: Literal[2, 3, 4, 5, 6, 7, 8, 32] = 4
    steps: Annotated[int, Field(ge=5)] = 1000
    rate: Annotated[float, Field(gt=0)] = 0.02
    strength: Annotated[float, Field(ge=0)] = 0.01

    family = "quantization"
    paper = "Nagel et al. 2020, arXiv 2004.10568"
    needs = "calibration"
    realisation = "packed"
    identity = {"bits": KEEP}
    strongest = {"bits": 2, "steps": 20}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Fold the batch norms, round stem, classifier and depth-wise layers, then
        learn the others one after another.
        """
        if self.bits == KEEP:
            return model
        images = data.calibration
        fold_batchnorms(model, images[:1])
        dense = deepcopy(model)
        layers, inner, how = weighted(model), prunable(model), rules(model, self.bits)
        for name in layers.keys() - inner.keys():
            store_as_codes(
                layers[name], round_to_nearest(layers[name].weight.flatten(1), how[name])
            )
        f = activations(dense, prunable(dense), images[:1])
        learning = Learning(self.steps, self.rate, self.strength)
        for stage, before in zip(
            stages(model, inner, images), stages(dense, prunable(dense), images), strict=True
        ):
            rows = input_rows(before.module, before.layers, before.inputs)
            for name, layer in stage.layers.items():
                W = layer.weight.detach().flatten(1)
                b = layer.bias.detach() if layer.bias is not None else W.new_zeros(len(W))
                X, T = (
                    input_rows(stage.module, {name: layer}, stage.inputs)[name],
                    torch.addmm(b, rows[name], W.T),
                )
                store_as_codes(layer, adaround(W, b, X, T, f[name], how[name], learning))
        return model
