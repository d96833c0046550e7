"""DepGraph: find by tracing which channels of which layers must go together, and remove
the groups of smallest norm, residual streams included.

Fang, Ma, Song, Mi, Wang, "DepGraph: Towards Any Structural Pruning", CVPR 2023, arXiv
2301.12900.

Tracing finds the groups of tensors whose channels are coupled. A unit k of a group is
one channel of every tensor in it. Its score is the squared norm of that channel (a row,
a column or a norm scale), averaged over the tensors,

    I_k = mean over the tensors of sum |w[k]|^2

and then divided by the mean of I over the group. All units are ranked in one list, and
the lowest go. Each of `steps` steps takes the scores anew and removes 1/steps of the
units, until the MACs budget is met; then comes fine-tuning.

Tracing, scores and surgery are those of the authors' library torch-pruning. The paper's
sparse learning is left out. The classifier's outputs stay.

Attention loses the same dimensions in all of its heads (the library's default); the
score of such a unit is the mean over the heads. Attention kernels scale logits by the
root of the width that is left, so the rows of q are multiplied by sqrt(new / old
width): a removed dimension then equals a zeroed one.

Arguments:
    macs: multiply-accumulates (MACs) that may be left, as a share of dense's; 1 keeps
        dense as it is
    steps: the number of steps that would remove all units; each removes 1/steps of the
        original number, and 1 ranks them only once

Assumed:
    - Every layer keeps at least one tenth of its channels; the library's own limit,
      none, would let layers vanish.
    - The step that would pass the budget goes unit by unit and leaves out those units
      that would lead more than 0.5 % below it. So the budget is met that closely as
      long as a cheap unit is left.
    - Ties go to the earlier group and unit.
    - LayerNorm scales count as the library counts them; position and class embeddings
      do not count.
    - A group is left alone where tracing does not see all of it: where a layer has more
      channels than the group couples (stages behind a zero-padded shortcut) or mixes
      positions instead of channels (a mixer's tokens). There only units inside the
      blocks go.

Checked against:
    - torch-pruning 1.6.1: its own pruner (BasePruner, global, 25 steps) leaves the same
      tensors after 1, 5 and 10 steps of trained resnet, mobilenet, vit and mixer. In
      the tests the comparison is shorter and leaves out qkv, whose q we rescale.
    - In the tests: the same outputs as of a model whose channels or head dimensions are
      zeroed instead.
    - In the tests: the scores of two linear layers in closed form.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from operator import itemgetter
from typing import Annotated, Any

import torch
import torch_pruning as tp
from pydantic import Field
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from methods import Data, Method
from methods.parts.network.layers import classifier
from methods.parts.training.train import train

LEAST = 0.1  # share of its channels that a layer keeps
SLACK = 0.005  # of the budget that may be left unused
Unit = tuple[str, int]  # the name of a group's root, and which of its units


def traced(model: nn.Module, data: Data) -> Any:
    """Return torch-pruning's dependency graph of `model`."""
    probe = torch.zeros(1, *data.image_shape, device=next(model.parameters()).device)
    return tp.DependencyGraph().build_dependency(model, (probe,), verbose=False)


def coupled(graph: Any, root: nn.Module, channels: Sequence[int]) -> Any:
    """Return the library's group of all that goes with `channels`: outputs of a layer,
    or those of an attention that its last layer reads.
    """
    if isinstance(root, Attention):
        return graph.get_pruning_group(root.proj, tp.prune_linear_in_channels, list(channels))
    return graph.get_pruning_group(
        root, graph.get_pruner_of_module(root).prune_out_channels, list(channels)
    )


def seen_whole(graph: Any, group: Any) -> bool:
    """Say whether `group`, made of all channels of its root, holds all channels of each
    of its members.
    """

    def channels(dep: Any) -> int | None:  # None for operators without channels of their own
        count = (
            graph.get_out_channels
            if graph.is_out_channel_pruning_fn(dep.handler)
            else graph.get_in_channels
        )
        return count(dep.target)  # type: ignore[no-any-return]

    return all(channels(dep) in (None, len(indices)) for dep, indices in group)


def norms(model: nn.Module, data: Data) -> dict[str, Tensor]:
    """Return I (units,) of each group that tracing saw whole, by the name of its root:
    a layer, or a timm Attention for the widths of its heads.
    """
    graph, importance = (
        traced(model, data),
        tp.importance.GroupMagnitudeImportance(p=2, normalizer="mean"),
    )
    names = {module: name for name, module in model.named_modules()}
    attentions = {module.qkv: module for module in model.modules() if isinstance(module, Attention)}
    found: dict[str, Tensor] = {}
    for group in graph.get_all_groups(
        ignored_layers=[model.get_submodule(name) for name in classifier(model)]
    ):
        makers = [
            dep.target.module for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)
        ]
        root = next((attentions[layer] for layer in makers if layer in attentions), makers[0])
        if isinstance(root, Attention):
            group = coupled(graph, root, range(root.attn_dim))
        if seen_whole(graph, group):
            heads = root.num_heads if isinstance(root, Attention) else 1
            found[names[root]] = importance(group).view(heads, -1).mean(0)
    return found


def order(scores: Mapping[str, Tensor], floors: Mapping[str, int]) -> list[Unit]:
    """Order the units of all groups by their score, lowest first, ties to the earlier
    group and unit; each group's best `floors` are not in it.
    """
    ranked: list[tuple[float, Unit]] = []
    for name, score in scores.items():
        for unit in score.sort(stable=True).indices[: max(len(score) - floors[name], 0)].tolist():
            ranked.append((float(score[unit]), (name, unit)))
    return [unit for _, unit in sorted(ranked, key=itemgetter(0))]


def narrow_heads(attention: Attention, width: int) -> None:
    """Make `attention`, whose layers have lost dimensions, one of heads of `width` with
    logits as if those were zeros.
    """
    rows = attention.num_heads * width
    attention.qkv.weight[:rows] *= sqrt(width / attention.head_dim)
    if attention.qkv.bias is not None:
        attention.qkv.bias[:rows] *= sqrt(width / attention.head_dim)
    attention.head_dim, attention.attn_dim, attention.scale = width, rows, width**-0.5


def without(model: nn.Module, units: Sequence[Unit], data: Data) -> nn.Module:
    """Return a copy of `model` without `units` and all that is coupled to them; its
    tensors are really smaller.
    """
    smaller = copy.deepcopy(model)
    graph = traced(smaller, data)
    for name in dict(units):
        gone, root = [unit for where, unit in units if where == name], smaller.get_submodule(name)
        with torch.no_grad():
            if isinstance(root, Attention):
                coupled(
                    graph,
                    root,
                    [
                        head * root.head_dim + unit
                        for head in range(root.num_heads)
                        for unit in gone
                    ],
                ).prune()
                narrow_heads(root, root.head_dim - len(gone))
            else:
                coupled(graph, root, gone).prune()
    return smaller


def last_step(
    model: nn.Module, units: Sequence[Unit], budget: float, slack: float, data: Data
) -> nn.Module:
    """Return `model` without those of `units`, in their order, that lead to [budget -
    slack, budget] MACs, or else next below it.
    """
    # the longest prefix that stays above the window
    low, high, below = 0, len(units), without(model, units, data)
    while high - low > 1:
        middle = (low + high) // 2
        trial = without(model, units[:middle], data)
        low, high, below = (
            (middle, high, below) if data.macs(trial) > budget else (low, middle, trial)
        )
    taken, passed = list(units[:low]), set[str]()
    for unit in units[low:]:
        if data.macs(below) >= budget - slack:
            break
        if unit[0] in passed:
            continue
        trial = without(model, [*taken, unit], data)
        macs = data.macs(trial)
        if macs > budget:
            taken.append(unit)
        else:
            passed.add(unit[0])
            below = max(below, trial, key=data.macs)
    return below


def prune_in_steps(model: nn.Module, ratio: float, steps: int, data: Data) -> nn.Module:
    """Return `model` with at most `ratio` of its MACs, its units removed in steps of
    1/`steps` of all. Raises ValueError if the floors are in the way.
    """
    dense, scores = data.macs(model), norms(model, data)
    floors = {name: ceil(LEAST * len(score)) for name, score in scores.items()}
    total = sum(map(len, scores.values()))
    for step in range(1, steps + 1):
        scores = norms(model, data)
        units = order(scores, floors)
        smaller = without(
            model, units[: sum(map(len, scores.values())) - int(total * (1 - step / steps))], data
        )
        if data.macs(smaller) <= ratio * dense:
            return last_step(model, units, ratio * dense, SLACK * ratio * dense, data)
        model = smaller
    raise ValueError(
        f"macs {ratio} is out of reach: at the floors {data.macs(model) / dense:.3f} of the MACs "
        "remain; ask for more"
    )


@dataclass(frozen=True)
class DepGraph(Method):
    """Remove the coupled units of smallest norm, 1/`steps` of all at a time, down to
    `macs` of the multiply-accumulates; then fine-tune.
    """

    macs: Annotated[float, Field(gt=0, le=1)] = 0.5
    steps: Annotated[int, Field(ge=1, le=400)] = 25

    family = "pruning"
    paper = "Fang et al. 2023, arXiv 2301.12900"
    needs = "fine-tune"
    stochastic = True
    identity = {"macs": 1.0}
    strongest = {"macs": 0.25}

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.macs == 1:
            return model
        return train(prune_in_steps(model, self.macs, self.steps, data), data, data.fine_tune)
