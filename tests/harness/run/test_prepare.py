"""The data of a track as its workers read it: what timm's loader gives, each model's own way, made once and mapped."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageDataset, create_loader

from harness.data import dataset, splits
from harness.data.image_files import ImageFiles
from harness.data.transform import transform_of, transforms
from harness.run.prepare import MADE, prepare
from leaderboard.records.errors import UserError
from leaderboard.records.params import ModelParams

CPU = torch.device("cpu")
WHERE = "SHRINKMARK_DATA"


def anonymous():
    """Return the MiB of memory that are no part of a file."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


@pytest.fixture
def photographs(tmp_path):
    """A folder of 3 classes with 8 images to train and 4 to test each, of all shapes."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name in ("cat", "dog", "owl"):
            folder = tmp_path / "photographs" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                shape = (int(draw.integers(40, 90)), int(draw.integers(40, 90)), 3)
                pixels = Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8))
                pixels.save(folder / f"{number}.{'png' if number % 2 else 'jpg'}")
    return tmp_path / "photographs"


@pytest.fixture
def folder_track(track, photographs):
    """A track of that folder with two models that take their images otherwise."""
    models = {
        "resnet": ModelParams(timm="resnet10t"),
        "vit": ModelParams(timm="vit_tiny_patch16_224", image_size=(48, 32), crop=1.0),
    }
    data = {"folder": str(photographs)}
    update = {"dataset": "image_folder", "data": data, "models": models, "calibration": 6, "image_size": None,
              "interpolation": None, "crop": None, "normalise": None}  # fmt: skip
    return track.model_copy(update=update)


def test_each_model_takes_its_images_its_own_way_and_as_timm_s_loader_gives_them(
    folder_track, photographs, tmp_path
):
    prepared = prepare(folder_track, tmp_path / "data")
    assert (prepared.images.train, prepared.images.validation, prepared.images.test) == (21, 3, 12)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(
        transforms(folder_track)
    )
    for name in folder_track.models:
        made = transform_of(folder_track, name)
        loader = create_loader(
            ImageDataset(str(photographs / "val")), (3, *made.size), 4, use_prefetcher=False,
            interpolation=made.interpolation, mean=made.mean, std=made.std, crop_pct=made.crop, crop_mode=made.crop_mode,
        )  # fmt: skip
        theirs = [torch.cat(part) for part in zip(*loader, strict=True)]
        folder = splits.folder_of(tmp_path / "data", folder_track, name)
        test = splits.TestSplit.read(folder)
        assert torch.equal(test.labels, theirs[1])
        torch.testing.assert_close(
            torch.cat(list(test.batches(5, CPU))), theirs[0], atol=1e-6, rtol=0
        )
    assert made.size == (48, 32) and transform_of(folder_track, "resnet").size == (176, 176)


def test_pixels_are_made_once_and_again_when_a_file_changes(
    folder_track, photographs, tmp_path, monkeypatch
):
    decoded = []
    decode = ImageFiles.decode
    monkeypatch.setattr(
        ImageFiles, "decode", lambda files, index: decoded.append(index) or decode(files, index)
    )
    first = prepare(folder_track, tmp_path / "data")
    assert len(decoded) == 2 * (21 + 3 + 12 + 6)
    decoded.clear()
    (tmp_path / "data" / "scratch-of-a-killed-run").mkdir()
    assert prepare(folder_track, tmp_path / "data") == first and decoded == []
    assert not (tmp_path / "data" / "scratch-of-a-killed-run").exists()
    Image.new("RGB", (50, 50)).save(photographs / "val" / "cat" / "0.jpg")
    assert prepare(folder_track, tmp_path / "data").content_hash != first.content_hash and decoded


def test_files_that_are_no_images_are_one_line_or_left_out_and_said(
    folder_track, photographs, tmp_path
):
    whole = (photographs / "train" / "owl" / "1.png").read_bytes()
    (photographs / "train" / "owl" / "1.png").write_bytes(whole[: len(whole) // 2])
    (photographs / "val" / "dog" / "2.jpg").write_text("no image")
    with pytest.raises(
        UserError, match=r"is no image or is cut off .*--skip-broken .*\(and 1 more like it\)"
    ) as said:
        prepare(folder_track, tmp_path / "data")
    assert "\n" not in str(said.value)
    assert not [path for path in (tmp_path / "data").iterdir() if path.name.startswith("scratch")]
    skipping = folder_track.model_copy(update={"data": folder_track.data | {"skip_broken": True}})
    prepared = prepare(skipping, tmp_path / "data")
    assert (prepared.images.train + prepared.images.validation, prepared.images.test) == (23, 11)
    assert "2 files that are no images were left out" in prepared.notes


def test_a_disk_without_room_is_one_line_and_leaves_nothing(folder_track, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        UserError, match=r"cannot write .*train.npy: No space left on device: free space"
    ):
        prepare(folder_track, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_an_interrupted_preparation_begins_again(folder_track, tmp_path, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(splits, "save", pressed)
        with pytest.raises(KeyboardInterrupt):
            prepare(folder_track, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    assert prepare(folder_track, tmp_path / "data").images.test == 12


def test_too_few_images_to_calibrate_on_are_one_line(folder_track, tmp_path):
    with pytest.raises(UserError, match="calibration asks for 22 images but train has 21"):
        prepare(folder_track.model_copy(update={"calibration": 22}), tmp_path)


def test_what_the_track_does_not_know_of_a_dataset_is_one_line(folder_track):
    with pytest.raises(UserError, match=r"data of dataset 'image_folder': .*folder"):
        dataset("image_folder", {})
    with pytest.raises(UserError, match=r"data of dataset 'image_folder': .*foldre"):
        dataset("image_folder", {"foldre": "x", "folder": "x"})


def test_a_split_is_mapped_and_not_held_in_memory(tmp_path):
    count = 3000  # of 3 x 224 x 224 bytes: 450 MB
    pixels = np.lib.format.open_memmap(
        tmp_path / "x.npy", mode="w+", dtype=np.uint8, shape=(count, 3, 224, 224)
    )
    labels = torch.zeros(count, dtype=torch.long)
    units = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    few = splits.Split(torch.from_numpy(pixels[:4]), labels[:4])
    data = splits.TrackData(
        "x", {}, 2, few, few, splits.Split(torch.from_numpy(pixels), labels), few.images, *units
    )
    before = anonymous()
    splits.save(data, tmp_path)
    test = splits.TestSplit.read(tmp_path)
    assert test.pixels.shape == pixels.shape and float(next(test.batches(2, CPU)).sum()) == 0
    assert anonymous() - before < 50


REAL = {
    "efficientnet_lite0": {
        "timm": "tf_efficientnet_lite0.in1k",
        "weights": "weights/tf_efficientnet_lite0.in1k.safetensors",
    },
    "deit_tiny": {
        "timm": "deit_tiny_patch16_224.fb_in1k",
        "weights": "weights/deit_tiny_patch16_224.fb_in1k.ln8bit.safetensors",
    },
    "mobilenetv2": {  # padded and scaled as TensorFlow does
        "timm": "mobilenetv2_100",
        "args": {"pad_type": "same", "bn_eps": 0.001},
        "weights": "weights/mobilenetv2_100.coral_qat.safetensors",
        "interpolation": "bilinear",
        "normalise": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    },
}


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get(WHERE), reason=f"{WHERE} is not set: no photographs and no weights"
)
@pytest.mark.parametrize("name", REAL)
def test_predictions_on_real_photographs_are_those_of_timm_s_own_loop(params, name, tmp_path):
    whole, about = params.track("imagenet_small"), ModelParams.model_validate(REAL[name])
    own = whole.model_copy(update={"models": {name: about}, "calibration": 4, "first": 256})
    prepare(own, tmp_path)
    test = splits.TestSplit.read(splits.folder_of(tmp_path, own, name))
    file = {"file": f"{os.environ[WHERE]}/{about.weights}"}
    model = timm.create_model(
        about.timm, pretrained=True, pretrained_cfg_overlay=file, **about.args
    ).eval()
    found = dataset("image_folder", own.data).found()
    paths = [str(found.files.paths[index]) for index in found.test[:256]]
    said = about.model_dump(include={"interpolation"}, exclude_none=True)
    said |= about.normalise.model_dump() if about.normalise else {}
    transform = timm.data.create_transform(**timm.data.resolve_data_config(said, model=model))
    with torch.inference_mode():
        ours = torch.cat([model(batch).argmax(1) for batch in test.batches(64, CPU)])
        theirs = [
            int(model(transform(Image.open(path).convert("RGB"))[None]).argmax()) for path in paths
        ]
    assert ours.tolist() == theirs
    assert 0.7 < float((ours == test.labels).double().mean()) < 0.95
    assert (splits.folder_of(tmp_path, own, name) / MADE).is_file()
