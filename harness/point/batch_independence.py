"""Whether an artefact does for one image what it does for many: work is counted, and latency timed, at one batch size, accuracy at another."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import torch

from harness.data import splits
from harness.point import counter, store
from harness.point.worker import BATCH, CPU, PREDICTIONS, Job, Refused

ALONE = 64  # test images that are run one by one
AGREEING = 0.95  # of them must be classified as they were in a batch; kernels for other shapes round otherwise, which decides near ties


@torch.inference_mode()
def same_in_batches(job: Job) -> dict[str, Any]:
    """Run the evaluated artefact in `job.folder` one image at a time and a batch at a time; return nothing.

    Raises Refused if an image costs more MACs in a batch of 256 than alone (where the program branches on images, which take other paths together, this is
    not asked), or if images are classified otherwise alone than they were together.
    """
    artefact, test = store.read(job.folder), splits.TestSplit.read(job.data)
    if not artefact.branches:
        alone, together = next(test.batches(1, CPU)), next(test.batches(BATCH, CPU))
        one, many = (counter.count(artefact.module, images, artefact.bits).macs for images in (alone, together))
        if many > one:
            raise Refused(f"an image costs {many:,.0f} MACs in a batch of {len(together)}, {one:,.0f} alone: the work depends on the batch")
    predicted = [int(artefact.module(image).argmax()) for image in islice(test.batches(1, CPU), ALONE)]
    same = int((np.load(job.folder / PREDICTIONS, allow_pickle=False)[: len(predicted)] == predicted).sum())
    if same < AGREEING * len(predicted):
        raise Refused(f"{len(predicted) - same} of {len(predicted)} test images are classified otherwise alone than in a batch")
    return {}
