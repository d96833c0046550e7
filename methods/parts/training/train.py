"""The one training loop: dense models, fine-tuning and training from scratch all run
through it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from methods import Data, Schedule
from methods.parts.training.cuda_graph import captured

Groups = list[dict[str, object]]


def _adamw(groups: Groups, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def _sgd(groups: Groups, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, fused=True)


OPTIMISERS: dict[str, Callable[[Groups, float], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def train(
    model: nn.Module,
    data: Data,
    schedule: Schedule,
    before_step: Callable[[float], None] = lambda rate: None,
) -> nn.Module:
    """Train `model` in place with linear warm-up and cosine decay on cross-entropy,
    where it is, and return it in eval mode.

    Tensors with fewer than two dimensions (biases, norms, scalars) get no weight decay.
    `before_step(rate)` is called before each optimiser step with its learning rate; a
    method puts its own decoupled update there. On a CUDA device forward and backward
    pass are one CUDA graph.
    """
    if data.steps(schedule) == 0:
        return model.eval()
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups: Groups = [
        {"params": decayed, "weight_decay": schedule.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimiser = OPTIMISERS[schedule.optimiser](groups, schedule.learning_rate)
    steps = data.steps(schedule)
    # OneCycleLR divides by zero where the warm-up is one step
    warmup = schedule.warmup * (0.999 if schedule.warmup * steps == 1 else 1)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        schedule.learning_rate,
        total_steps=steps,
        pct_start=warmup,
        anneal_strategy="cos",
        cycle_momentum=False,
    )
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster for convolutions on a CPU
    differentiate = captured(gradients(model, schedule), model)
    for images, labels in data.batches(schedule):
        differentiate(images.contiguous(memory_format=torch.channels_last), labels)
        before_step(float(rates.get_last_lr()[0]))
        optimiser.step()
        rates.step()
    return model.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]


def gradients(model: nn.Module, schedule: Schedule) -> Callable[[Tensor, Tensor], None]:
    """Return the function of images (N, C, H, W) and labels (N,) that leaves the
    gradients of their loss in the parameters.
    """
    loss_of = nn.CrossEntropyLoss(label_smoothing=schedule.label_smoothing)
    precision = PRECISIONS[schedule.precision]

    def differentiate(images: Tensor, labels: Tensor) -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(
            images.device.type, precision, enabled=precision != torch.float32, cache_enabled=False
        ):
            logits = model(images)
        loss_of(logits.float(), labels).backward()

    return differentiate
