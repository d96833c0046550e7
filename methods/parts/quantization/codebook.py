"""Weights as indices into a table of pieces: the table under training, how it is
stored, and what happens to the layers that get none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from methods import Codebook, store_as_codes
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import Layer, prunable, weighted
from methods.parts.quantization.quantize import OTHERS, round_to_nearest, rule


class Table(nn.Module):
    """The parametrisation weight.flatten() = table[index].flatten() with `zeros` rows
    of 0 and the rows of C, or of C P, as table.

    C: (k, d), P: (d, m); the gradient of a row of the table is the sum of those of the
    pieces that share it.
    """

    index: Tensor

    def __init__(self, index: Tensor, start: Sequence[Tensor], zeros: int) -> None:
        super().__init__()
        self.start, self.zeros = [part.float() for part in start], zeros
        self.register_buffer("index", index)

    def forward(self, C: Tensor, P: Tensor | None = None) -> Tensor:
        table = nn.functional.pad(C if P is None else C @ P, (0, 0, self.zeros, 0))
        return table[self.index].view(self.shape)

    def right_inverse(self, W: Tensor) -> Sequence[Tensor]:
        self.shape = W.shape
        return self.start


def share(layer: Layer, index: Tensor, start: Sequence[Tensor], zeros: int = 0) -> None:
    """Let the weight of `layer` be made of the parameters C, or C and P, that begin as
    `start`.
    """
    parametrize.register_parametrization(layer, "weight", Table(index, start, zeros))


def table_of(layer: Layer) -> tuple[Table, Sequence[Tensor]]:
    """Return the table of `layer` and its parameters, C or C and P."""
    made = cast(parametrize.ParametrizationList, layer.get_submodule("parametrizations.weight"))
    return cast(Table, made[0]), [
        cast(Tensor, getattr(made, f"original{i}")).detach().clone() for i in range(made.ntensors)
    ]


def unshare(layer: Layer) -> tuple[Table, Sequence[Tensor]]:
    """Give `layer` a plain weight of the same values again; return the table that it
    had and its parameters.
    """
    found = table_of(layer)
    parametrize.remove_parametrizations(layer, "weight")
    return found


def store_table(layer: Layer) -> None:
    """Fix the table of `layer`, rounded to float16, and store the weight as indices
    into it; a square P is multiplied out, as it saves nothing.
    """
    table, (C, *rest) = unshare(layer)
    if rest and rest[0].shape[0] == rest[0].shape[1]:
        C, rest = C @ rest.pop(), []
    C = nn.functional.pad(C, (0, 0, table.zeros, 0))
    store_as_codes(layer, Codebook(table.index, C.half(), rest[0].half() if rest else None))


def prepare(model: nn.Module, image_shape: tuple[int, int, int]) -> list[Layer]:
    """Fold the batch norms, round stem, classifier and depth-wise convolutions to 8
    bits, as `rtn` does, and return the layers that get a table.

    The weights that are rounded are kept out of any training.
    """
    fold_batchnorms(model, next(model.parameters()).new_zeros(1, *image_shape))
    inner = prunable(model)
    for name, layer in weighted(model).items():
        if name not in inner:
            store_as_codes(
                layer,
                round_to_nearest(layer.weight.flatten(1), rule(OTHERS, layer.weight[0].numel())),
            )
            layer.weight.requires_grad_(False)
    return list(inner.values())
