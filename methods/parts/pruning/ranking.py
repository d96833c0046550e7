"""Which free unit of a model goes first when all groups are ranked in one list, and the
MACs that pruning in steps leaves after each.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import torch
from torch import Tensor, nn

from methods import Data
from methods.parts.pruning.channels import Unit, prune_to_macs


def global_order(scores: Sequence[Tensor]) -> list[Unit]:
    """Order the units of all groups for removal by their group's score (units,), lowest
    first, ties to the earlier group and unit.

    The best unit of a group never goes.
    """
    ranked = [score.sort(stable=True).indices[:-1] for score in scores]
    units = [
        (number, unit)
        for number, indices in enumerate(ranked)
        for unit in indices.sort().values.tolist()
    ]
    values = torch.cat(
        [score[indices.sort().values] for score, indices in zip(scores, ranked, strict=True)]
    )
    return [units[place] for place in values.sort(stable=True).indices.tolist()]


def macs_limits(dense: int, ratio: float, steps: int) -> list[float]:
    """Return the MACs that each of `steps` steps may leave of `dense`: each closes an
    equal part of the gap, the last leaves ratio * dense.
    """
    return [dense * (1 - (1 - ratio) * step / steps) for step in range(1, steps)] + [ratio * dense]


def prune_below(model: nn.Module, order: Sequence[Unit], limit: float, data: Data) -> list[Unit]:
    """Remove from `model`, in place, the shortest prefix of `order` that leaves at most
    `limit` MACs (see `prune_to_macs`) and return the units removed.

    Raises ValueError if removing all of `order` is not enough.
    """
    # half a MAC: a ratio of ratios may round either way
    return prune_to_macs(model, order, (floor(limit) + 0.5) / data.macs(model), data)
