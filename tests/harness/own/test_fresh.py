"""Methods that train a narrower or fresh network, through the Python door: a timm model
needs no `fresh=`, and where it does one line says so.
"""

import pytest
import timm
import torch
from torch import nn

import shrinkmark
from harness.data.splits import digest

NAME, CLASSES = "vit_tiny_patch16_224", 4


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(40, 1, 16, 16) + (torch.arange(40) % CLASSES)[:, None, None, None]


@pytest.fixture
def labels():
    return torch.arange(40) % CLASSES


@pytest.fixture
def model():
    torch.manual_seed(0)
    size = {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 3}
    return timm.create_model(NAME, in_chans=1, num_classes=CLASSES, **size)


def test_slim_needs_no_fresh_of_a_model_that_timm_made(model, images, labels):
    before = digest(model.state_dict())
    state = torch.get_rng_state()
    small = shrinkmark.compress(model, "slim", images, labels=labels, macs=0.5)
    assert digest(model.state_dict()) == before and torch.equal(torch.get_rng_state(), state)
    row = shrinkmark.measure(small, dense=model, images=images, labels=labels)
    assert 2 <= row["theoretical_speedup"] < 2.5 and small.embed_dim == 33  # of 48, of 3 heads
    named = shrinkmark.compress(model, "slim", images, labels=labels, fresh=NAME, macs=0.5)
    assert digest(named.state_dict()) == digest(small.state_dict())


def test_a_method_that_trains_a_fresh_network_of_full_width_gets_one(images, labels):
    # none of whose arguments makes it narrower
    model = timm.create_model("hgnetv2_b0", in_chans=1, num_classes=CLASSES)
    images = images.repeat(1, 1, 2, 2)
    sparse = shrinkmark.compress(
        model, "powerpropagation", images, labels=labels, epochs=0, sparsity=0.5
    )
    assert sparse(images[:2]).shape == (2, CLASSES)
    with pytest.raises(ValueError, match=r"timm's 'hgnetv2_b0'.*: give fresh=, a function"):
        shrinkmark.compress(model, "slim", images, labels=labels, macs=0.5)


def test_a_timm_model_that_was_changed_needs_fresh_for_such_methods_alone(model, images, labels):
    model.blocks[0].mlp.act = nn.ReLU()
    with pytest.raises(ValueError, match=f"timm's '{NAME}' is not the model at hand.*give fresh="):
        shrinkmark.compress(model, "slim", images, labels=labels, macs=0.5)
    assert shrinkmark.compress(model, "rtn", images).blocks[0].mlp.act.__class__ is nn.ReLU


def test_a_model_that_timm_did_not_make_needs_fresh(images, labels):
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, CLASSES))
    with pytest.raises(ValueError, match="the model is none that timm made: give fresh="):
        shrinkmark.compress(model, "slim", images, labels=labels, macs=0.5)
    with pytest.raises(ValueError, match=f"timm's '{NAME}' is not the model at hand"):
        shrinkmark.compress(model, "slim", images, labels=labels, fresh=NAME, macs=0.5)
    with pytest.raises(ValueError, match="timm has no model 'vitt': give fresh="):
        shrinkmark.compress(model, "slim", images, labels=labels, fresh="vitt", macs=0.5)
