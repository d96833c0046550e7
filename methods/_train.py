"""The one training loop: dense models, fine-tuning and training from scratch all run through it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from methods import Data, Schedule


def train(model: nn.Module, data: Data, schedule: Schedule, before_step: Callable[[float], None] = lambda rate: None) -> nn.Module:
    """Train `model` in place by AdamW with linear warm-up and cosine decay on cross-entropy, and return it in eval mode.

    Tensors with fewer than two dimensions (biases, norms, scalars) get no weight decay. `before_step(rate)` is called before each optimiser
    step with its learning rate; a method puts its own decoupled update there.
    """
    if schedule.epochs == 0:
        return model.eval()
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=schedule.learning_rate, fused=True)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, schedule.learning_rate, total_steps=data.steps(schedule), pct_start=schedule.warmup, anneal_strategy="cos", cycle_momentum=False
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=schedule.label_smoothing)
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster for convolutions on a CPU
    for images, labels in data.batches(schedule):
        optimiser.zero_grad()
        loss_of(model(images.contiguous(memory_format=torch.channels_last)), labels).backward()
        before_step(float(rates.get_last_lr()[0]))
        optimiser.step()
        rates.step()
    return model.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]
