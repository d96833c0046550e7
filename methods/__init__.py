"""The contract between a compression method and the benchmark.

A method is one file `methods/<name>.py` with one class derived from `Method`; `<name>`
is how params.yaml, the tables and the command line call it. Its dataclass fields are
its hyper-parameters and are validated by pydantic, so a field says its range in its
type.
Fields with these names are budgets, and the contract test checks them against what was
counted:

============== =========================================================================
`macs`         multiply-accumulates of the compressed model / those of dense, never above
`sparsity`     share of zeros in the weights that `methods.parts.network.layers.prunable`
               lists, never below (per row: rounded down)
`bits`         bits of a stored code in the layers that the method's docstring names
`average_bits` stored bits of those layers' weights, scales and zero points included /
               their number of weights, never above
============== =========================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from methods.parts import torchvision  # noqa: F401  (timm imports only after this)

Needs = Literal["data-free", "calibration", "labels", "fine-tune", "scratch"]
Realisation = Literal["structural", "packed", "kernel", "masked", "dynamic"]


@dataclass(frozen=True)
class Schedule:
    """One training budget: linear warm-up, cosine to zero; the numbers stand in
    params.yaml.
    """

    optimiser: Literal["adamw", "sgd"]  # sgd: Nesterov momentum 0.9
    # of the forward and backward pass; weights and optimiser stay float32
    precision: Literal["fp32", "bf16"]
    epochs: float
    batch: int
    learning_rate: float
    weight_decay: float
    warmup: float  # share of the steps
    label_smoothing: float


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) float32, normalised, and labels (N,) int64."""

    images: Tensor
    labels: Tensor


class Data(ABC):
    """All that a method may see of a track; it counts the images drawn from it, and has
    no test split and no path to one.

    All that it gives lies on the device of the model at hand; only generators are the
    CPU's: draw there, then move.
    """

    scratch: Schedule
    fine_tune: Schedule
    image_shape: tuple[int, int, int]  # C, H, W

    @property
    @abstractmethod
    def calibration(self) -> Tensor:
        """Return the unlabelled calibration images (N, C, H, W), the same for every
        method and seed; each access counts N images.
        """

    @property
    @abstractmethod
    def train(self) -> Split:
        """Return the training split without augmentation; each access counts its
        images.
        """

    @property
    @abstractmethod
    def validation(self) -> Split:
        """Return the validation split (cut out of train), for choices; each access
        counts its images.
        """

    @abstractmethod
    def batches(self, schedule: Schedule) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `schedule.epochs` shuffled, augmented passes over train as (images,
        labels); only full batches, the last pass cut short if it is a part.
        """

    @abstractmethod
    def steps(self, schedule: Schedule) -> int:
        """Return how many batches `batches(schedule)` yields."""

    @abstractmethod
    def macs(self, model: nn.Module) -> int:
        """Count the multiply-accumulates of one image, by the same counter that the
        tables use.
        """

    @abstractmethod
    def narrower(self, width: float) -> nn.Module:
        """Build an untrained model of the family of the model at hand with its widths
        multiplied by `width` in (0, 1].
        """

    @abstractmethod
    def generator(self, name: str) -> torch.Generator:
        """Return a CPU generator that depends on the point's seed and `name` alone."""


@dataclass(frozen=True)
class Codes:
    """A weight stored as integers: weight.flatten(1)[o, j] = scale[o, j // group] *
    (codes[o, j] - zero[o, j // group]).

    codes: (rows, columns) uint8 below 2**bits; scale: (rows, groups) float16; zero:
    (rows, groups) uint8.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    bits: int
    group: int

    def decode(self, shape: torch.Size) -> Tensor:
        """Return the float32 weight of `shape`."""
        columns = self.codes.shape[1]
        scale = self.scale.float().repeat_interleave(self.group, 1)[:, :columns]
        zero = self.zero.float().repeat_interleave(self.group, 1)[:, :columns]
        return (scale * (self.codes.float() - zero)).view(shape)


@dataclass(frozen=True)
class Codebook:
    """A weight stored as indices into a table of its pieces: weight.flatten() is
    table[index].flatten(), table = centroids @ projection.

    index: (n,) int64 below k, at most 65536; centroids: (k, d) float16; projection: (d,
    m) float16, or None for pieces that are the centroids themselves.
    """

    index: Tensor
    centroids: Tensor
    projection: Tensor | None = None

    def table(self) -> Tensor:
        """Return the pieces (k, m) that the indices choose from, float32 (multiplied in
        float64, so that every machine rounds to the same).
        """
        centroids = self.centroids.double()
        return (
            centroids if self.projection is None else centroids @ self.projection.double()
        ).float()

    def decode(self, shape: torch.Size) -> Tensor:
        """Return the float32 weight of `shape`."""
        return self.table()[self.index].view(shape)


def store_as_codes(layer: nn.Module, codes: Codes | Codebook) -> None:
    """Replace `layer.weight` by what `codes` decode to and have the artefact store the
    codes.

    The harness refuses the point if weight and codes disagree in a single bit when it
    is written.
    """
    with torch.no_grad():
        layer.weight.copy_(codes.decode(layer.weight.shape))  # type: ignore[operator, union-attr, arg-type]
    layer.weight_codes = codes  # type: ignore[assignment]


@dataclass(frozen=True)
class Method(ABC):
    """One compression method at one setting; the dataclass fields are its
    hyper-parameters.

    Facts, plain constants in a method's class: family, paper: shown in the tables.
    needs: the budget class. realisation: how the saving exists. stochastic: whether the
    result depends on the seed; if so the point is run for every seed of params.yaml.
    identity, strongest: the settings at which the method must equal dense, and at which
    it does most damage; the contract test runs both.
    """

    family: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[Needs]
    realisation: ClassVar[Realisation] = "structural"
    stochastic: ClassVar[bool] = False
    identity: ClassVar[Mapping[str, Any]]
    strongest: ClassVar[Mapping[str, Any]] = {}

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def skip(self, model: nn.Module) -> str | None:
        """Say why this method cannot compress `model` at this setting, or None if it
        can.
        """
        return None

    @abstractmethod
    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Return `model` compressed. `model` is a private copy in eval mode and may be
        changed in place.
        """
