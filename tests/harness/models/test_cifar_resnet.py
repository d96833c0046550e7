"""The ResNets for CIFAR: sizes and costs as published, and reference weights that fit
or are refused.
"""

import hashlib
import os

import pytest
import timm
import torch

from harness.data import splits
from harness.data.folder import FOLDER_VARIABLE
from harness.models import build, register, weights
from harness.point import counter
from leaderboard.records.errors import UserError
from leaderboard.records.params import ModelParams
from tests.conftest import loaded

RIGHT = 915  # of the first 1,000 test images, by ResNet-20; 91.73 % of all 10,000
SIZES = {
    "resnet20_cifar": 269_722,
    "resnet32_cifar": 464_154,
    "resnet44_cifar": 658_586,
    "resnet56_cifar": 853_018,
}
register()


def closed_form(blocks, classes=10):
    """MACs of 6n + 2 layers by hand: stem, 2n convolutions a stage at 32, 16 and 8
    pixels, classifier.
    """
    stem, first = 32 * 32 * 3 * 16 * 9, 2 * blocks * 32 * 32 * 16 * 16 * 9
    second = 16 * 16 * 9 * (16 * 32 + (2 * blocks - 1) * 32 * 32)
    third = 8 * 8 * 9 * (32 * 64 + (2 * blocks - 1) * 64 * 64)
    return stem + first + second + third + 64 * classes


@pytest.mark.parametrize(("name", "parameters"), SIZES.items())
def test_timm_creates_them_with_the_published_numbers_of_parameters(name, parameters):
    model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("name", "blocks"), [("resnet20_cifar", 3), ("resnet56_cifar", 9)])
def test_the_counter_gives_their_macs_in_closed_form(name, blocks):
    assert counter.count(
        timm.create_model(name).eval(), torch.zeros(1, 3, 32, 32)
    ).macs == closed_form(blocks)


def test_the_shortcut_of_option_a_subsamples_and_pads_with_zeros():
    shortcut = timm.create_model("resnet20_cifar").layer2[0].downsample
    x = torch.rand(1, 16, 4, 4)
    y = shortcut(x)
    assert (
        y.shape == (1, 32, 2, 2)
        and torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
        and not y[:, :8].any()
        and not y[:, 24:].any()
    )
    assert not list(shortcut.parameters())


def test_the_mobilenet_for_32_pixels_ends_at_4x4_and_has_the_published_parameters_of_its_family():
    model = timm.create_model("mobilenetv2_cifar", num_classes=10)
    assert model.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 1280, 4, 4)
    reference = timm.create_model("mobilenetv2_100", num_classes=10)
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in reference.parameters()
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path / "weights"


def checkpoint(folder, monkeypatch, change=lambda state: None):
    """Write a checkpoint as the reference's author writes it, and have timm's registry
    name it.
    """
    model = timm.create_model("resnet20_cifar")
    state = {
        f"module.{name.replace('fc.', 'linear.')}": tensor
        for name, tensor in model.state_dict().items()
    }
    change(state)
    torch.save({"state_dict": state, "best_prec1": 10.0}, folder / "new.th")
    content = (folder / "new.th").read_bytes()
    name = f"resnet20-{hashlib.sha256(content).hexdigest()[:8]}.th"
    (folder / "new.th").rename(folder / name)
    cfg = timm.get_pretrained_cfg("resnet20_cifar")
    monkeypatch.setattr(cfg, "url", f"https://nowhere.invalid/{name}")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: cfg)
    return model, folder / name


PARAMS = ModelParams(
    timm="resnet20_cifar", args={"channels": [16, 32, 64]}, narrow={"channels": 1}, weights="timm"
)


def test_a_reference_checkpoint_is_loaded_whole_by_name_and_hash(folder, monkeypatch):
    saved, file = checkpoint(folder, monkeypatch)
    loaded = weights.load(PARAMS, 3, 10)
    assert (
        loaded.origin == f"weights {file.name} (state_dict; 'module.' stripped; converted by timm)"
        and loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        and all(
            torch.equal(loaded.model.state_dict()[key], tensor)
            for key, tensor in saved.state_dict().items()
        )
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("module.bn1.weight"), "1 missing (bn1.weight): "),
        (lambda state: state.update(extra=torch.zeros(1)), "1 unexpected (extra): "),
    ],
    ids=["missing", "surplus"],
)
def test_a_checkpoint_with_a_tensor_too_few_or_too_many_is_refused(
    folder, monkeypatch, change, said
):
    checkpoint(folder, monkeypatch, change)
    with pytest.raises(UserError, match="do not fit 'resnet20_cifar'") as error:
        weights.load(PARAMS, 3, 10)
    assert said in str(error.value)


def test_a_damaged_checkpoint_is_named_and_not_read(folder, monkeypatch):
    _, file = checkpoint(folder, monkeypatch)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"are damaged: .* delete the file and run again"):
        weights.load(PARAMS, 3, 10)


def test_without_file_and_network_one_line_says_where_to_put_it(folder, monkeypatch):
    _, file = checkpoint(folder, monkeypatch)
    file.unlink()
    with pytest.raises(UserError, match="not found: put them into") as error:
        weights.load(PARAMS, 3, 10)
    assert "\n" not in str(error.value) and not list(folder.iterdir())


def test_a_model_without_reference_weights_says_so():
    params = ModelParams(timm="resnet_small", args={"layers": [1, 1, 1, 1]}, weights="timm")
    with pytest.raises(UserError, match="timm has no weights of 'resnet_small'"):
        weights.load(params, 3, 10)


@pytest.mark.skipif(
    not os.environ.get(FOLDER_VARIABLE),
    reason=f"{FOLDER_VARIABLE} is not set: no data and no reference weights",
)
def test_the_real_reference_weights_classify_the_real_test_images(params):
    found = loaded(params.tracks["cifar10_cpu"])
    images = splits.normalised(found.test.images[:1000], found.mean, found.std)
    dense = weights.load(params.tracks["cifar10_cpu"].models["resnet20"], 3, 10)
    with torch.inference_mode():
        right = int((dense.model.eval()(images).argmax(1) == found.test.labels[:1000]).sum())
    assert dense.sha256.startswith("12fca82f") and right == RIGHT


def test_narrower_ones_are_built_by_their_channels():
    narrow = build.build(PARAMS, 3, 10, width=0.5)
    assert (
        narrow.conv1.out_channels == 8
        and narrow.fc.in_features == 32
        and narrow(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    )
