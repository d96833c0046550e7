"""Taylor: remove the channels, hidden units and heads whose removal changes the loss
least by its first-order expansion, in steps, then fine-tune.

Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance Estimation for Neural Network
Pruning", CVPR 2019, arXiv 1906.10771.

If all weights w_s of a unit, s in S, become 0, the loss L changes to first order by
minus the sum of g_s w_s, with the gradient g = dL/dw. The score of the unit is the
square of this change: the paper's weight form, summed before it is squared,

    I_S = (sum_{s in S} g_s w_s)^2

taken per batch and averaged over the batches, with norms in eval mode. All units are
ranked in one list; scores are taken anew in each step.

Arguments:
    macs: multiply-accumulates (MACs) that may be left, as a share of dense's; 1 keeps
        dense as it is
    steps: how often units are scored and removed; each step closes an equal part of the
        gap between dense's MACs and the budget; 1 removes all of them at once
    batches: how many batches of 64 images the scores are averaged over
    between: share of the track's fine-tuning budget that is spent, in equal parts,
        after all steps but the last; the rest follows the last step; 0 fine-tunes only
        then

Assumed:
    - S is every weight that goes with the unit: the rows and biases that make it, its
      batch norms and depth-wise filters, and the columns that read it (of a head: its
      rows of q, k and v and its columns of proj).
    - Deviation: the paper's best form multiplies the unit by a gate and scores only the
      gate. Each tensor of S through which all of the unit passes is such a gate, so
      that our sum counts the gate more than once, and adds q and k besides.
    - Deviation: each step closes an equal part of the MACs gap, and no average of the
      scores is kept from step to step. The authors remove 100 neurons every 30 batches
      of fine-tuning and keep a moving average of the scores.
    - The images of the scores are of the training split, not augmented, and the same in
      all steps.
    - Each part of the fine-tuning is a schedule of its own, and together the parts take
      the track's budget.
    - 50 batches, and 20 steps with an epoch between, would be more than the budgets
      allow; the defaults are smaller for that reason.

Checked against:
    - github.com/NVlabs/Taylor_pruning at 4b70120, its engine run on the digits ResNet:
      our sums over norm and over reading columns, squared and averaged over four
      batches, equal its "BN_Taylor" and "Taylor_gate" to 1e-14.
    - torch-pruning 1.6.1, GroupTaylorImportance: the same |sum g w| of every
      convolution and Linear of a group (it leaves out norms and depth-wise filters).
    - In the tests: the loss change when a unit really goes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from methods import Data, Method, Schedule
from methods.parts.pruning.channels import Group, groups
from methods.parts.pruning.ranking import global_order, macs_limits, prune_below
from methods.parts.training.train import train

BATCH = 64  # images


def change(parameter: Tensor, axis: int) -> Tensor:
    """Return sum g w over all but `axis` of `parameter`: minus how the loss changes, to
    first order, if they become 0.
    """
    assert parameter.grad is not None
    return (
        (parameter.grad * parameter.detach())
        .transpose(0, axis)
        .reshape(parameter.shape[axis], -1)
        .sum(1)
    )


def first_order(group: Group) -> Tensor:
    """Return sum_{s in S} g_s w_s (units,) from the gradients that stand in the
    parameters; S: all weights that go with a unit.
    """
    made = [change(p, 0)[group.rows] for p in group.producer.parameters()]
    passed = [change(p, 0)[group.columns] for module in group.between for p in module.parameters()]
    read = [change(layer.weight, 1)[group.columns] for layer in group.readers]
    return torch.cat(made + passed + read, dim=1).sum(1)


def importance(model: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Return I (units,) of every group of `model`, averaged over batches of `images`
    (N, C, H, W) with `labels` (N,).
    """
    found, per_batch = groups(model), []
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        model.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        per_batch.append([first_order(group).square() for group in found])
    model.zero_grad()
    return [torch.stack(squares).mean(0) for squares in zip(*per_batch, strict=True)]


def parts(data: Data, steps: int, between: float) -> list[Schedule]:
    """Split the fine-tuning budget into one schedule per step, `between` of it before
    the last; together they take exactly its gradient steps.
    """
    total, epoch = data.steps(data.fine_tune), data.steps(replace(data.fine_tune, epochs=1))
    each = floor(between * total / (steps - 1)) if steps > 1 else 0
    counts = [each] * (steps - 1) + [total - each * (steps - 1)]
    # half a batch: steps are rounded down
    return [replace(data.fine_tune, epochs=(count + 0.5) / epoch) for count in counts]


@dataclass(frozen=True)
class Taylor(Method):
    """Remove units in `steps` steps down to `macs` of the multiply-accumulates, scored
    on `batches` batches, and fine-tune after each step, with `between` of the budget
    before the last.
    """

    macs: Annotated[float, Field(gt=0, le=1)] = 0.5
    steps: Annotated[int, Field(ge=1, le=100)] = 3
    batches: Annotated[int, Field(ge=1)] = 4
    between: Annotated[float, Field(ge=0, le=1)] = 0.2

    family = "pruning"
    paper = "Molchanov et al. 2019, arXiv 1906.10771"
    needs = "fine-tune"
    stochastic = True
    identity = {"macs": 1.0}
    strongest = {"macs": 0.25}

    def skip(self, model: nn.Module) -> str | None:
        return (
            None
            if groups(model)
            else "no free channels: every layer is coupled to a residual stream or of an unknown "
            "kind"
        )

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        if self.macs == 1:
            return model
        train_split, dense = data.train, data.macs(model)
        labels = train_split.labels
        chosen = torch.randperm(len(labels), generator=data.generator("taylor"))[
            : BATCH * self.batches
        ].to(labels.device)
        images, labels = train_split.images[chosen], labels[chosen]
        for limit, part in zip(
            macs_limits(dense, self.macs, self.steps),
            parts(data, self.steps, self.between),
            strict=True,
        ):
            prune_below(model, global_order(importance(model, images, labels)), limit, data)
            train(model, data, part)
        return model
