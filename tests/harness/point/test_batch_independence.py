"""Programs that do other work, or give other answers, for one image than for many, or
for one image than for another.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from harness.data import splits
from harness.point import predictions, store
from harness.point.batch_independence import evaluated
from harness.point.worker import EXPECTED, PROBE, Job, evaluate_point
from leaderboard.records.errors import BrokenContract

IMAGES, CLASSES = 64, 4


class Honest(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 32), nn.Linear(32, CLASSES)

    def forward(self, images):
        return self.last(self.first(images.flatten(1)).relu())


class IdleAlone(Honest):
    """Runs a layer more often the more images there are, and hardly for one."""

    def __init__(self):
        super().__init__()
        self.more = nn.Linear(16, 64)

    def forward(self, images):
        count = 4 * images.shape[0] - 3
        return super().forward(images) + 1e-9 * self.more(images.new_ones(count, 16)).sum()


class OtherAlone(Honest):
    """Gives the answer of another class where there is one image."""

    def forward(self, images):
        logits = super().forward(images)
        return torch.cond(
            torch.scalar_tensor(images.shape[0]) < 2,
            lambda found: found.roll(1, 1),
            lambda found: found.clone(),
            (logits,),
        )


class OftenOtherAlone(Honest):
    """Gives the answer of another class where there is one image, but keeps the right
    one on some images; without a branch.
    """

    def forward(self, images):
        logits = super().forward(images)
        alone = 1 // images.shape[0] * (images[:, 0, :1, 0] > -1)  # most images
        return logits * (1 - alone) + logits.roll(1, 1) * alone


class LooksAtBright(Honest):
    """Works on the bright pixels only, however many there are."""

    def forward(self, images):
        bright = images[images > 1].unsqueeze(1)
        return super().forward(images) + 1e-9 * (bright @ self.first.weight[:1]).sum()


class IdleTogether(Honest):
    """Runs a layer once for every two images, and twice for one."""

    def forward(self, images):
        return (
            super().forward(images)
            + 1e-9 * (images.new_ones((images.shape[0] + 3) // 2, 16) @ self.first.weight.T).sum()
        )


class ProductOfWeights(Honest):
    """Multiplies two weights once, however many images there are."""

    def forward(self, images):
        return images.flatten(1) @ (self.last.weight @ self.first.weight).T


class BranchesOnImages(Honest):
    """Takes a layer more for a bright batch."""

    def forward(self, images):
        flat = images.flatten(1)
        more = torch.cond(
            flat.mean() > 0,
            lambda flat: flat @ self.first.weight.T,
            lambda flat: flat.repeat(1, 2),
            (flat,),
        )
        return super().forward(images) + 0 * more[:, :CLASSES]


def job(folder, model):
    """Return the job of an artefact of `model` that has been compressed."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 1, 4, 4), dtype=torch.uint8)
    units = {"mean": torch.full((1, 1, 1), 128.0), "std": torch.full((1, 1, 1), 60.0)}
    safetensors.torch.save_file(
        {"images": images, "labels": torch.zeros(IMAGES, dtype=torch.long), **units},
        folder / splits.TEST,
    )
    learned = {name: images[:PROBE].clone() for name in splits.LEARNED} | units
    learned["classes"] = torch.tensor(CLASSES)
    safetensors.torch.save_file(learned, folder / splits.LEARN)
    model = model().eval()
    pixels = splits.TestSplit.read(folder).images(PROBE)
    store.write(folder, store.export(model, pixels[:2]), {})
    with torch.inference_mode():
        np.save(folder / EXPECTED, model(pixels).numpy())
    return Job(SimpleNamespace(device="cpu"), "m", "m", {}, 0, folder, folder, folder, 2.0)


def test_a_model_that_treats_every_image_alike_passes(tmp_path, monkeypatch):
    reads = []
    read = store.read
    monkeypatch.setattr(store, "read", lambda folder: reads.append(folder) or read(folder))
    found = evaluate_point(job(tmp_path, Honest))
    assert (
        found["macs"] == 16 * 32 + 32 * 4
        and found["images"] == len(predictions.read(tmp_path)["class"]) == IMAGES
    )
    assert reads == [tmp_path], "the artefact is read once"


def test_work_that_is_done_once_for_a_batch_is_counted_as_if_it_were_done_for_each_image(tmp_path):
    assert evaluate_point(job(tmp_path, ProductOfWeights))["macs"] == 4 * 32 * 16 + 16 * 4


def test_a_program_that_branches_is_counted_on_every_image_alone(tmp_path):
    found = evaluate_point(job(tmp_path, BranchesOnImages))
    bright = (splits.TestSplit.read(tmp_path).images(IMAGES).flatten(1).mean(1) > 0).sum()
    assert 0 < bright < IMAGES and found["macs"] == round(
        16 * 32 + 32 * 4 + 16 * 32 * float(bright) / IMAGES
    )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        # 16 * 32 + 32 * 4, and 16 * 64 for (4 * 64 - 3) / 64 or 1
        (IdleAlone, r"an image costs 4,688 MACs in a batch of 64, 1,664 alone"),
        (OtherAlone, r"64 of 64 test images are classified otherwise alone"),
        (OftenOtherAlone, r"1\d of 20 test images are classified otherwise alone"),
        # 640, and 512 for 33 / 64 or 2
        (
            IdleTogether,
            r"an image costs 904 MACs in a batch of 64, 1,664 alone: the work depends on the batch",
        ),
        (
            LooksAtBright,
            r"the shape of what aten.index.Tensor returns depends on the image: work may depend "
            r"on the image only by torch.cond",
        ),
    ],
)
def test_what_depends_on_the_number_of_images_is_refused(tmp_path, model, said):
    with pytest.raises(BrokenContract, match=said):
        evaluate_point(job(tmp_path, model))


def test_work_that_depends_on_the_image_is_seen_by_the_counter_too(tmp_path):
    artefact = replace(store.read(job(tmp_path, Honest).folder), module=LooksAtBright().eval())
    with pytest.raises(
        BrokenContract,
        match=r"one test image costs [\d,]+ MACs, another [\d,]+: work may depend on the image only "
        r"by "
        r"torch.cond",
    ):
        evaluated(artefact, splits.TestSplit.read(tmp_path), torch.device("cpu"))
