"""Predictions and counts of an artefact, refused unless it does for one image what it
does for many, and the same for every image.

Work is counted, and latency timed, at one batch size, accuracy at another; and programs
without a branch are timed once, whatever their weights. So the first batch of the test
split is predicted under the counter: each operator must cost as often as there are
images what it costs for one image alone, or exactly that, which is work done once
whatever the images (a product of weights). What does other work for some of these
images (nonzero, masked_select) shows there, if `harness.point.store.export` has not
refused it. Work that depends on the image must say so by torch.cond; then every image
is counted alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.data import splits
from harness.point import counter, predictions, store
from harness.point.predictions import Predictions
from leaderboard.records.errors import BrokenContract

CPU = torch.device("cpu")
BATCH = 256  # test images evaluated at a time
ALONE = 20  # test images, spread over the split, that are also run one by one
# of them must be classified as they were in a batch; kernels for other shapes round
# otherwise, which decides near ties
AGREEING = 0.95


@torch.inference_mode()
def evaluated(
    artefact: store.Artefact, test: splits.TestSplit, device: torch.device
) -> tuple[Predictions, list[counter.Count]]:
    """Return the predictions of all test images, and the counts of images alone: of one,
    or of each if the program branches.

    Raises BrokenContract if a logit is not finite, if what an image costs depends on
    its batch or, without a branch, on the image, and if images are classified otherwise
    alone than together.
    """
    return (
        _branching(artefact, test, device)
        if artefact.branches
        else _straight(artefact, test, device)
    )


def _branching(
    artefact: store.Artefact, test: splits.TestSplit, device: torch.device
) -> tuple[Predictions, list[counter.Count]]:
    module = artefact.on(device)
    found = predicted((module(batch) for batch in test.batches(BATCH, device)), test.labels)
    classes, counts = list[int](), list[counter.Count]()
    for image in test.batches(1, CPU):
        logits, count = counter.run(artefact.module, image, artefact.bits)
        classes.append(int(logits.argmax()))
        counts.append(count)
    _same_classes(np.array(classes), found["class"])
    return found, counts


def _straight(
    artefact: store.Artefact, test: splits.TestSplit, device: torch.device
) -> tuple[Predictions, list[counter.Count]]:
    module, bits = artefact.on(device), artefact.bits
    picked = torch.arange(0, len(test.labels), max(1, len(test.labels) // ALONE))[:ALONE]
    first, *others = replace(test, pixels=test.pixels[picked], labels=test.labels[picked]).batches(
        1, CPU
    )
    alone, count = counter.run(artefact.module, first, bits)
    batches = test.batches(BATCH, device)
    batch = next(batches)
    together, counted = counter.run(module, batch, bits)
    if not _same_work(count, counted, len(batch)):
        raise BrokenContract(_difference(module, batch, count, counted))
    found = predicted(chain([together], (module(rest) for rest in batches)), test.labels)
    classes = [int(logits.argmax()) for logits in (alone, *map(artefact.module, others))]
    _same_classes(np.array(classes), found["class"][picked.numpy()])
    return found, [count]


def predicted(batches: Iterable[Tensor], labels: Tensor) -> Predictions:
    """Return the predictions that batches of logits (n, classes) are, in order: none is
    kept; raise BrokenContract if a logit is not finite.
    """
    parts, start = list[Predictions](), 0
    for logits in batches:
        if not torch.isfinite(logits).all():
            raise BrokenContract("the artefact returns NaN or infinity on test images")
        of_batch = labels[start : (start := start + len(logits))]
        parts.append(predictions.predictions(logits.cpu(), of_batch))
    return {name: np.concatenate([part[name] for part in parts]) for name in predictions.PARTS}


def _same_work(alone: counter.Count, together: counter.Count, images: int) -> bool:
    """Say whether `images` cost together what they cost alone; work done once must be
    the same operator's.
    """
    if len(alone.operators) != len(together.operators):  # other operators for other shapes
        return together.macs == images * alone.macs
    return all(
        b.macs in (images * a.macs, a.macs)
        for a, b in zip(alone.operators, together.operators, strict=True)
    )


def _difference(
    module: nn.Module, batch: Tensor, alone: counter.Count, together: counter.Count
) -> str:
    """Say whether it is the image or the batch that work depends on."""
    for image in batch.split(1):
        _, found = counter.run(module, image, {})
        if found.macs != alone.macs:
            return (
                f"one test image costs {found.macs:,} MACs, another {alone.macs:,}: work may "
                "depend on the image only by torch.cond"
            )
    return (
        f"an image costs {together.macs / len(batch):,.0f} MACs in a batch of {len(batch)}, "
        f"{alone.macs:,} alone: the work depends on the batch"
    )


def _same_classes(alone: NDArray[Any], together: NDArray[Any]) -> None:
    same = int((alone == together).sum())
    if same < AGREEING * len(alone):
        raise BrokenContract(
            f"{len(alone) - same} of {len(alone)} test images are classified otherwise alone than "
            "in a batch"
        )
