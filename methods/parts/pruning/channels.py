"""Free channels: units inside one block that nothing outside of it is coupled to, the
surgery that removes them, and the search for a MACs budget.

Free are conv1 (and conv2) of ResNet blocks, the expansion of an InvertedResidual, the
hidden units of timm's `Mlp` and the heads of timm's `Attention`. The residual stream,
and parts that mix the channels of a group (LayerNorm on hidden units, grouped
convolutions), are left alone.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from timm.layers import Mlp
from timm.models._efficientnet_blocks import InvertedResidual, SqueezeExcite
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from methods import Data
from methods.parts.network.layers import Layer

Unit = tuple[int, int]  # which of groups(model), which of its units


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can go one by one: the layer that makes them, what has a channel for
    each of them, and the layers that read them.

    rows: (units, r) the rows of `producer.weight` that make each unit; columns: (units,
    c) its input columns of `readers` and its channels in `between`. A removed unit
    equals one whose channels are 0 at the output of the last norm before `readers[0]`
    (at the input of `readers[0]` for hidden units and heads).
    """

    name: str
    producer: Layer
    rows: Tensor
    between: tuple[nn.Module, ...]
    readers: tuple[Layer, ...]
    columns: Tensor
    attention: Any = None  # timm's Attention, if the units are its heads

    @property
    def units(self) -> int:
        """Return how many units the group has."""
        return len(self.rows)

    def weights(self) -> Tensor:
        """Return the weights that make each unit (units, r * inputs of a row)."""
        return self.producer.weight.detach().flatten(1)[self.rows].flatten(1)

    def keep(self, units: Tensor) -> None:
        """Remove all but `units` (k,), ascending, in place; the group is used up by
        it.
        """
        columns = self.columns[units].flatten()
        _take(self.producer, self.rows[units].flatten().sort().values, 0)
        for module in self.between:
            _take(module, columns, 0)
        for layer in self.readers:
            _take(layer, columns, 1)
        if self.attention is not None:
            self.attention.num_heads = len(units)
            self.attention.attn_dim = len(columns)


def _take(module: nn.Module, index: Tensor, axis: int) -> None:
    """Keep `index` along `axis` of all tensors of `module` that have that axis, and
    correct the sizes it states.
    """
    for name, weight in list(module.named_parameters(recurse=False)):
        if weight.ndim > axis:
            setattr(
                module,
                name,
                nn.Parameter(weight.detach().index_select(axis, index), weight.requires_grad),
            )
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.ndim > axis:
            setattr(module, name, buffer.index_select(axis, index))
    if isinstance(module, nn.Conv2d):
        module.out_channels, module.in_channels = module.weight.shape[:2]
        if module.groups > 1:  # depth-wise
            module.groups = module.in_channels = module.out_channels
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = len(index)


def _channels(
    name: str, producer: nn.Module, between: Sequence[nn.Module], readers: Sequence[nn.Module]
) -> list[Group]:
    """Return the group of the output channels of `producer`, or none if a part is not
    known to treat channels one by one.
    """
    kept = tuple(module for module in between if not isinstance(module, nn.Identity))
    layers = tuple(
        layer
        for layer in (producer, *readers)
        if isinstance(layer, Layer) and getattr(layer, "groups", 1) == 1
    )
    if len(layers) != 1 + len(readers) or not all(
        isinstance(module, (nn.BatchNorm2d, nn.Conv2d)) for module in kept
    ):
        return []
    index = torch.arange(layers[0].weight.shape[0], device=layers[0].weight.device)[:, None]
    return [Group(name, layers[0], index, kept, layers[1:], index)]


def _basic(name: str, block: Any) -> list[Group]:
    return _channels(f"{name}.conv1", block.conv1, [block.bn1, block.aa], [block.conv2])


def _bottleneck(name: str, block: Any) -> list[Group]:
    first = _channels(f"{name}.conv1", block.conv1, [block.bn1], [block.conv2])
    return first + _channels(f"{name}.conv2", block.conv2, [block.bn2, block.aa], [block.conv3])


def _inverted(name: str, block: Any) -> list[Group]:
    if not block.conv_dw.groups == block.conv_dw.in_channels == block.conv_dw.out_channels:
        return []
    squeeze = isinstance(block.se, SqueezeExcite)
    between = [
        block.bn1,
        block.conv_dw,
        block.bn2,
        block.aa,
        block.se.conv_expand if squeeze else block.se,
    ]
    return _channels(
        f"{name}.conv_pw",
        block.conv_pw,
        between,
        [block.conv_pwl, *([block.se.conv_reduce] if squeeze else [])],
    )


def _mlp(name: str, mlp: Any) -> list[Group]:
    return _channels(f"{name}.fc1", mlp.fc1, [mlp.norm], [mlp.fc2])


def _heads(name: str, attention: Any) -> list[Group]:
    if not isinstance(attention.norm, nn.Identity):
        return []
    head = torch.arange(attention.attn_dim, device=attention.qkv.weight.device).view(
        attention.num_heads, attention.head_dim
    )
    # of q, k and v
    rows = torch.cat([head + part * attention.attn_dim for part in range(3)], dim=1)
    between = () if attention.gate is None else (attention.gate,)
    return [Group(f"{name}.qkv", attention.qkv, rows, between, (attention.proj,), head, attention)]


FINDERS: dict[type[nn.Module], Callable[[str, Any], list[Group]]] = {
    BasicBlock: _basic,
    Bottleneck: _bottleneck,
    InvertedResidual: _inverted,
    Mlp: _mlp,
    Attention: _heads,
}


def groups(model: nn.Module) -> list[Group]:
    """Return the groups of free units of `model`, first to last."""
    return [
        group
        for name, module in model.named_modules()
        for kind, find in FINDERS.items()
        if isinstance(module, kind)
        for group in find(name, module)
    ]


def remove(model: nn.Module, units: Collection[Unit]) -> None:
    """Remove `units` from `model` in place; its tensors really get smaller."""
    for number, group in enumerate(groups(model)):
        gone = [unit for where, unit in units if where == number]
        if gone:
            stays = torch.ones(group.units, dtype=torch.bool, device=group.rows.device)
            stays[gone] = False
            group.keep(stays.nonzero().flatten())


def removal_order(scores: Sequence[Tensor]) -> list[Unit]:
    """Order the units of all groups for removal: the lowest of the group's score
    (units,) first, all groups at the same pace.

    The unit of rank r = 0, 1, ... (ties to the lower index) of n goes when the share p
    to remove reaches (r + 1/2) / n, so that round(p n) are gone. The best unit of a
    group never goes.
    """
    order: list[tuple[float, Unit]] = []
    for number, score in enumerate(scores):
        ranked = score.sort(stable=True).indices.tolist()
        order += [
            ((rank + 0.5) / len(ranked), (number, unit)) for rank, unit in enumerate(ranked[:-1])
        ]
    return [unit for _, unit in sorted(order, key=itemgetter(0))]


def prune_to_macs(model: nn.Module, order: Sequence[Unit], ratio: float, data: Data) -> list[Unit]:
    """Remove from `model`, in place, the shortest prefix of `order` that leaves at most
    `ratio` of its MACs, and return the units removed.

    The last step may be a large one (a head); units removed before it, latest first,
    then stay where they still fit the budget. Raises ValueError if removing all of
    `order` is not enough.
    """

    def macs(units: Sequence[Unit]) -> int:
        smaller = copy.deepcopy(model)
        remove(smaller, units)
        return data.macs(smaller)

    dense = data.macs(model)
    least = macs(order)
    if least > ratio * dense:
        raise ValueError(
            f"macs {ratio} is out of reach: with one unit left in each group {least / dense:.3f} "
            "of the MACs remain; ask for more"
        )
    count = bisect_left(range(len(order) + 1), True, key=lambda k: macs(order[:k]) <= ratio * dense)
    removed = list(order[:count])
    slack = ratio * dense - macs(removed)
    # of one unit of each group; a bound where groups multiply
    cost = {number: dense - macs([(number, unit)]) for number, unit in dict(removed).items()}
    for unit in reversed(order[: max(count - 1, 0)]):
        if cost[unit[0]] <= slack:
            slack -= cost[unit[0]]
            removed.remove(unit)
    remove(model, removed)
    return removed
