"""Programs that do other work, or give other answers, for one image than for many."""

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from harness.data import splits
from harness.point import store
from harness.point.batch_independence import same_in_batches
from harness.point.worker import PREDICTIONS, Job, Refused

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
        return torch.cond(torch.scalar_tensor(images.shape[0]) < 2, lambda found: found.roll(1, 1), lambda found: found.clone(), (logits,))


def job(folder, model):
    """Return the job of an artefact of `model` that has been evaluated in batches."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 1, 4, 4), dtype=torch.uint8)
    split = {
        "images": images,
        "labels": torch.zeros(IMAGES, dtype=torch.long),
        "mean": torch.full((1, 1, 1), 128.0),
        "std": torch.full((1, 1, 1), 60.0),
    }
    safetensors.torch.save_file(split, folder / splits.TEST)
    model = model().eval()
    pixels = splits.TestSplit.read(folder).images(IMAGES)
    store.write(folder, store.export(model, pixels[:2]), {})
    with torch.inference_mode():
        np.save(folder / PREDICTIONS, model(pixels).argmax(1).numpy().astype(np.uint8))
    return Job(None, "m", "m", {}, 0, folder, folder, folder, 2.0)


def test_a_model_that_treats_every_image_alike_passes(tmp_path):
    assert same_in_batches(job(tmp_path, Honest)) == {}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (IdleAlone, r"an image costs 4,688 MACs in a batch of 64, 1,664 alone"),  # 16 * 32 + 32 * 4, and 16 * 64 for (4 * 64 - 3) / 64 or 1
        (OtherAlone, r"64 of 64 test images are classified otherwise alone"),
    ],
)
def test_what_depends_on_the_number_of_images_is_refused(tmp_path, model, said):
    with pytest.raises(Refused, match=said):
        same_in_batches(job(tmp_path, model))
