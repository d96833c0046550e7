"""LAPTOP-Diff: leave out the residual units whose removal changes the output least,
then distil with feature losses of one scale.

Zhang, Li, Chen, Xie, Lu, "LAPTOP-Diff: Layer pruning and normalized distillation for
compressing diffusion models", 2024, arXiv 2404.11098.

One residual unit i at a time is removed, and the change of the final output f is
measured, E being the mean over images:

    delta_i = E ||f(x without i) - f(x)||^2

These losses are nearly additive. The units to drop are therefore those of least sum of
delta_i that together save enough parameters, a 0/1 knapsack.

The rest, the student S, is trained on the task and to agree with dense, the teacher T,
at its output and inside:

    L = L_task + L_out + w sum_k ||F_T^k - F_S^k||^2 / ||F_T^k||^2

F_T^k and F_S^k are the features of teacher and student at place k. Each feature term is
divided by the teacher's, so that no large one rules the others.

Arguments:
    parameters: share of all parameters of the model that may remain at most, counted
        before BatchNorms are folded; 1 is dense, untouched
    temperature: temperature of the softmaxes that L_out compares; the higher, the
        flatter they are
    features: w, the weight of the feature terms; 0 leaves them out

Assumed:
    - The paper is about diffusion models. Here f is the logits, mean-centred, on the
      calibration images, with BatchNorm statistics as they are.
    - L_task is cross-entropy and L_out Hinton's KL at `temperature`, both with weight
      1.
    - The paper says that feature terms are weighted by the norm of the teacher's
      feature maps, but not how. Here they are divided by its square, taken over the
      batch.
    - Units are blocks with an identity shortcut in CNNs. In ViTs and MLP-Mixers they
      are attention layers (token-mixing MLPs in a Mixer) and MLPs, one by one.
    - Features are compared at the ends of the stages of a CNN and at the end of each
      block of the others, with the teacher's of the same place. A place of which
      nothing is left in the student is passed over.
    - The knapsack is solved exactly; of equal losses, the earlier units go.
    - Training is the track's fine-tuning.

Checked against:
    - In the tests, by hand, since no official code is known: all subsets of 12 units,
      for the knapsack.
    - In the tests, by hand: sums of delta_i in a linear residual net.
    - In the tests, by hand: feature terms under a change of scale.
    - How nearly the losses add up: on the trained models of the digits track, the sum
      of delta_i and the joint loss of 50 random sets of up to half of the units
      correlate by 0.98 (resnet), 0.80 (mobilenet), 0.82 (vit) and 0.88 (mixer).
    - The same on the pretrained CIFAR ResNets, whose units matter more: 0.33
      (ResNet-20) and 0.59 (ResNet-56, 0.85 between logarithms).
    - Random sets of units: at 0.3 of the parameters, the sets chosen end at a lower
      loss after training than random ones (vit, mixer).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from typing import Annotated

import torch
from pydantic import Field
from timm.models.mlp_mixer import MixerBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.depth.drop import droppable, halves
from methods.parts.network.layers import blocks
from methods.parts.training.losses import soft_loss, with_loss
from methods.parts.training.train import train


def size(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def separated(model: nn.Module) -> list[str]:
    """Split transformer and mixer blocks into their halves, in place, and return the
    names of all units that may be dropped, first to last.
    """
    units: list[str] = []
    for name, block in [
        (name, module) for name, module in model.named_modules() if droppable(module)
    ]:
        if isinstance(block, (Block, MixerBlock)):
            model.set_submodule(name, halves(block))
            units += [f"{name}.attention", f"{name}.mlp"]
        else:
            units.append(name)
    return units


@torch.no_grad()
def output_losses(model: nn.Module, units: Sequence[str], images: Tensor) -> list[float]:
    """Return delta_i = E ||f(x without i) - f(x)||^2 of each of `units`, f the
    mean-centred logits.
    """

    def f() -> Tensor:
        logits: Tensor = torch.cat([model(batch) for batch in images.split(128)]).float()
        return logits - logits.mean(1, keepdim=True)

    def delta(name: str) -> float:
        unit = model.get_submodule(name)
        model.set_submodule(name, nn.Identity())
        change = float((f() - whole).square().sum(1).mean())
        model.set_submodule(name, unit)
        return change

    whole = f()
    return [delta(name) for name in units]


def cheapest(delta: Sequence[float], saved: Sequence[int], need: int) -> list[int]:
    """Return the set of units of least sum of `delta` that saves at least `need`;
    KeyError if all together save less.
    """
    # parameters saved, at most `need`: least loss, units
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for i, (loss, parameters) in enumerate(zip(delta, saved, strict=True)):
        for total, (sum_of, units) in list(best.items()):
            key, candidate = min(total + parameters, need), (sum_of + loss, (*units, i))
            best[key] = min(best.get(key, candidate), candidate)
    return list(best[need][1])


def feature_loss(F_S: Tensor, F_T: Tensor) -> Tensor:
    """Return ||F_T - F_S||^2 / ||F_T||^2 over the batch, in float32."""
    return (F_T.float() - F_S.float()).square().sum() / F_T.float().square().sum()


def ends(model: nn.Module) -> list[str]:
    """Return where features are compared: every block of a transformer or mixer, every
    stage (the parent of blocks) of a CNN.
    """
    whole = (Block, MixerBlock)
    return list(
        dict.fromkeys(
            name if isinstance(block, whole) else name.rpartition(".")[0]
            for name, block in blocks(model).items()
        )
    )


@contextmanager
def distilled(
    model: nn.Module, teacher: nn.Module, places: Sequence[str], temperature: float, w: float
) -> Iterator[None]:
    """Have the logits of `model` carry L_out and the feature losses against `teacher`
    at `places`.
    """
    S: dict[str, Tensor] = {}
    T: dict[str, Tensor] = {}

    def keep(features: dict[str, Tensor], name: str) -> Callable[..., None]:
        return lambda _module, _args, output: features.__setitem__(name, output)

    def hook(_module: nn.Module, args: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        with torch.no_grad():
            target = teacher(args[0])
        features = sum(
            (feature_loss(S[name], T[name]) for name in places),
            torch.zeros((), device=logits.device),
        )
        return with_loss(logits, soft_loss(logits, target, temperature) + w * features)

    handles = [
        net.get_submodule(name).register_forward_hook(keep(seen, name))
        for net, seen in ((model, S), (teacher, T))
        for name in places
    ]
    handles.append(model.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class LAPTOP(Method):
    """Drop units until at most the share `parameters` of all parameters remains, and
    distil dense into the rest.
    """

    parameters: Annotated[float, Field(gt=0, le=1)] = 0.7
    temperature: Annotated[float, Field(gt=0)] = 4.0
    features: Annotated[float, Field(ge=0)] = 1.0

    family = "depth"
    paper = "Zhang et al. 2024, arXiv 2404.11098"
    needs = "fine-tune"
    stochastic = True
    identity = {"parameters": 1.0}
    strongest = {"parameters": 0.46}

    def skip(self, model: nn.Module) -> str | None:
        units = [module for module in model.modules() if droppable(module)]
        least = 1 - sum(map(size, units)) / size(model)
        if self.need(model) > sum(map(size, units)):
            return (
                f"{self.parameters:g} of the parameters asked for, but without all {len(units)} "
                f"blocks that can be dropped {least:.3f} remain"
            )
        return None

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.parameters == 1:
            return model
        teacher, places, need = copy.deepcopy(model), ends(model), self.need(model)
        units = separated(model)
        delta = output_losses(model, units, data.calibration)
        for index in cheapest(delta, [size(model.get_submodule(name)) for name in units], need):
            model.set_submodule(units[index], nn.Identity())
        places = [name for name in places if size(model.get_submodule(name))]
        with distilled(model, teacher, places, self.temperature, self.features):
            return train(model, data, data.fine_tune)

    def need(self, model: nn.Module) -> int:
        """Return how many parameters have to go."""
        return size(model) - floor(self.parameters * size(model))
