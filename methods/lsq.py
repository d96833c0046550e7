"""LSQ, learned step size quantisation: train with rounded weights and activations, and
train the step of each grid along with the weights.

Esser, McKinstry, Bablani, Appuswamy, Modha, "Learned Step Size Quantization", ICLR
2020, arXiv 1902.08153; for signed activations Bhalgat, Lee, Nagel, Blankevoort, Kwak,
"LSQ+: Improving low-bit quantization through learnable offsets and better
initialization", CVPRW 2020, arXiv 2004.09576.

A weight or input v is rounded to

    v^ = s round(clip(v / s, -Qn, Qp)).

Rounding passes gradients straight through, so that dv^/dv is 1 inside the range and 0
outside, and dv^/ds is round(v / s) - v / s inside, -Qn below and Qp above. The gradient
of s is multiplied by g = 1 / sqrt(N Qp), where N is the number of weights, or of
features per image.

With b bits, a weight tensor has one step, Qn = 2^(b-1) and Qp = 2^(b-1) - 1. Inputs of
layers that are never negative have Qn = 0 and Qp = 2^b - 1; others get an offset beta.
Weights and inputs start at s = 2 mean |v| / sqrt(Qp), but inputs with an offset start
on the min-max grid of least error, whose range is searched as in `rtn`.

The dense model is trained for the track's fine-tuning budget, with its batch norms
unfolded. Attention's two products, norms, biases and residual sums stay float32.

Afterwards the batch norms are folded, which multiplies the step of each row of codes (a
negative gamma gives a negative step), and those steps are rounded to float16. The codes
are what was trained. But few levels magnify the rounding of steps, so that outputs
move, squared, by up to a fifth at 2 bits, and accuracy by a few images either way.

Arguments:
    bits: width of weights and inputs of all Conv2d and Linear except stem, classifier
        and depth-wise convolutions, which get 8; 32 leaves the model as it is,
        untrained

Assumed:
    - beta is a whole number of steps, -Qn s, so that 0 stays a point of the grid, as
      padding and integer kernels want it.
    - The gradient of beta is multiplied by g, too. For inputs with an offset, g has
      2^b - 1 in the place of Qp.
    - Inputs are seen, and steps started, on the first 128 calibration images.
    - s is kept positive as |s|.
    - Everything is trained with the track's optimiser and rate. Adam's, where the track
      has it, cancels g.
    - Steps do not decay.
    - There is no distillation, and BatchNorm's statistics are not frozen at the end.

Checked against:
    - torch._fake_quantize_learnable_per_tensor_affine (torch 2.13) at 2, 3, 4 and 8
      bits, signed, unsigned and with offsets: values and gradients of v equal, of s and
      Qn to 2e-5. Values up to half a step beyond the last point are excepted: torch
      takes them as inside and the paper as outside.
    - In the tests: worked gradients by hand.
    - In the tests: what is stored against what was trained.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from methods import Codes, Data, Method, store_as_codes
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import prunable, weighted
from methods.parts.quantization.activations import Static, observe, quantise_input
from methods.parts.quantization.quantize import KEEP, OTHERS, SMALLEST, Grid, asymmetric, mse
from methods.parts.training.train import train

SEEN = 128  # images on which steps start
SAMPLE = 2**16  # entries of an input among which its range is searched


class Rounding(torch.autograd.Function):
    """The quantiser of v with step s, v^ = s round(clip(v / s, -Qn, Qp)), Qp = top -
    Qn, with the paper's gradients.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, s: Tensor, Qn: Tensor, top: int) -> Tensor:
        """Return v^; s > 0 and the whole number Qn are scalars."""
        u = v / s + Qn
        q = u.clamp(0, top).round_() - Qn
        ctx.save_for_backward(v, s, u, q)
        ctx.top = top
        return q * s

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        """Return sum d dv^/d. : v: 1 inside, 0 outside; s: round(v / s) - v / s inside,
        -Qn below, Qp above; Qn: 0 inside, -s outside.
        """
        v, s, u, q = ctx.saved_tensors
        dv = torch.where(u == u.clamp(0, ctx.top), d, 0.0)
        ds = (d * q).sum() - (dv * v).sum() / s
        return dv, ds, -s * (d.sum() - dv.sum()) if ctx.needs_input_grad[2] else None, None


def lsq(v: Tensor, s: Tensor, Qn: Tensor, top: int) -> Tensor:
    """Return v^ = s round(clip(v / s, -Qn, top - Qn)) in float32, also under
    autocast.
    """
    result: Tensor = Rounding.apply(v.float(), s, Qn, top)
    return result


def scaled(p: Tensor, g: float) -> Tensor:
    """Return p, with its gradient multiplied by g."""
    return p.detach() + g * (p - p.detach())


class WeightStep(nn.Module):
    """A parametrisation that puts a weight W on a signed grid of 2^bits points with one
    learned step s.
    """

    Qn: Tensor

    def __init__(self, W: Tensor, bits: int) -> None:
        super().__init__()
        self.bits, self.top, Qp = bits, 2**bits - 1, 2 ** (bits - 1) - 1
        self.s = nn.Parameter(2 * W.abs().mean().clamp(min=SMALLEST) / sqrt(Qp))
        self.register_buffer("Qn", torch.full_like(self.s, Qp + 1, requires_grad=False))
        self.g = 1 / sqrt(W.numel() * Qp)

    def forward(self, W: Tensor) -> Tensor:
        """Return W^."""
        return lsq(W, scaled(self.s.abs(), self.g), self.Qn, self.top)


class InputStep(nn.Module):
    """Puts an input on a grid of 2^bits points with learned step s; if it has negative
    values, as x has, also with learned offset beta.
    """

    def __init__(self, x: Tensor, bits: int) -> None:
        super().__init__()
        self.top, signed = 2**bits - 1, bool(x.min() < 0)
        if signed:
            grid = mse(asymmetric, x.flatten()[:: -(-x.numel() // SAMPLE)].view(1, -1), bits)
            s, beta = grid.scale.view(()), -(grid.zero * grid.scale).view(())
        else:
            s, beta = 2 * x.mean().clamp(min=SMALLEST) / sqrt(self.top), x.new_zeros(())
        self.s, self.beta = nn.Parameter(s), nn.Parameter(beta, requires_grad=signed)
        self.g = 1 / sqrt(x[0].numel() * self.top)

    def grid(self) -> tuple[Tensor, Tensor]:
        """Return s and Qn = round(-beta / s) in [0, top], rounded with the gradient of
        what is rounded.
        """
        s = scaled(self.s.abs(), self.g)
        Qn = (-scaled(self.beta, self.g) / s).clamp(0, self.top)
        return s, Qn + (Qn.round() - Qn).detach()

    def forward(self, x: Tensor) -> Tensor:
        """Return x^ in the shape of x."""
        return lsq(x, *self.grid(), self.top)

    @torch.no_grad()
    def fixed(self) -> Static:
        """Return the same grid, no longer learned."""
        return Static(Grid(*self.grid(), self.top))


def add_steps(model: nn.Module, images: Tensor, bits: int) -> None:
    """Let every Conv2d and Linear round its weight and its input, on steps that start
    as `images` (one batch) say.
    """
    layers, inner = weighted(model), prunable(model)

    def start(name: str, x: Tensor) -> None:
        steps[name] = InputStep(x, bits if name in inner else OTHERS)

    steps: dict[str, InputStep] = {}
    observe(model, layers, images, start)
    for name, layer in layers.items():
        quantise_input(layer, steps[name])
        parametrize.register_parametrization(
            layer, "weight", WeightStep(layer.weight.detach(), bits if name in inner else OTHERS)
        )


@torch.no_grad()
def as_codes(W: Tensor, q: Tensor, bits: int) -> Codes:
    """Return codes of W (rows, columns), each row of which is a multiple of its row of
    whole numbers `q` in [-2^(bits-1), 2^(bits-1)).
    """
    scale = (W * q).sum(1, keepdim=True) / q.square().sum(1, keepdim=True).clamp(min=1)
    half = 2 ** (bits - 1)
    return Codes(
        (q + half).to(torch.uint8),
        scale.half(),
        torch.full_like(scale, half).to(torch.uint8),
        bits,
        W.shape[1],
    )


@torch.no_grad()
def store_steps(model: nn.Module, probe: Tensor) -> None:
    """Fix the grids of `model`, fold its batch norms (`probe`: an image), and store the
    weights as codes.
    """
    layers = weighted(model)
    q: dict[str, tuple[Tensor, int]] = {}
    for name, layer in layers.items():
        step = cast(WeightStep, layer.get_submodule("parametrizations.weight.0"))
        q[name] = (layer.weight / step.s.abs()).round().flatten(1), step.bits
        parametrize.remove_parametrizations(layer, "weight")
        layer.input_quantiser = cast(InputStep, layer.input_quantiser).fixed()
    fold_batchnorms(model, probe)
    for name, layer in layers.items():
        store_as_codes(layer, as_codes(layer.weight.flatten(1), *q[name]))


@dataclass(frozen=True)
class LSQ(Method):
    """Train with weights and inputs in `bits` bits on learned grids."""

    bits: Literal[2, 3, 4, 8, 32] = 4

    family = "quantization"
    paper = "Esser et al. 2020, arXiv 1902.08153"
    needs = "fine-tune"
    realisation = "packed"
    stochastic = True
    identity = {"bits": KEEP}
    strongest = {"bits": 2}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Add the steps, train, and store what the weights are rounded to."""
        if self.bits == KEEP:
            return model
        images = data.calibration[:SEEN]
        add_steps(model, images, self.bits)
        train(model, data, data.fine_tune)
        store_steps(model, images[:1])
        return model
