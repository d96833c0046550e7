"""The track's data: a fixed, stratified split, nothing of the test split in reach of a method, and everything drawn is counted."""

import inspect
from dataclasses import replace

import pytest
import torch

from harness import data, models
from harness.errors import UserError
from harness.params import AugmentParams
from methods import Data


def rows(images):
    return {image.numpy().tobytes() for image in images}


def test_splits_are_about_60_10_30_percent_stratified_and_disjoint(track_data):
    sizes = [len(split.labels) for split in (track_data.train, track_data.validation, track_data.test)]
    assert sum(sizes) == 1797 and sizes == [1077, 180, 540]
    assert all(50 <= int(count) <= 58 for count in track_data.test.labels.bincount())
    parts = [rows(split.images) for split in (track_data.train, track_data.validation, track_data.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert rows(track_data.calibration) <= parts[0]


def test_the_content_is_the_one_that_results_were_made_with(params):
    assert data.content_hash(data.load(params.tracks["digits"])) == "38452de38552e3d0c8ee171ad6957de8f26a2086a90363ba35fdd2b129e7b38d"


def test_train_is_normalised_by_itself(track_data):
    assert abs(float(track_data.train.images.mean())) < 1e-5 and float(track_data.train.images.std()) == pytest.approx(1, abs=1e-4)


def test_what_methods_see_holds_no_test_image_and_no_path(track_data, make_data):
    seen = make_data("vit")
    held = [value for value in vars(seen).values() if isinstance(value, dict)]
    tensors = [tensor for holder in held for tensor in holder.values() if isinstance(tensor, torch.Tensor) and tensor.ndim == 4]
    assert tensors and not any(rows(tensor) & rows(track_data.test.images) for tensor in tensors)
    assert not any("test" in name for name, _ in inspect.getmembers(Data))


def test_images_drawn_are_counted(make_data, track):
    seen = make_data("vit")
    assert len(seen.calibration) == seen.images_seen == 64
    batches = list(seen.batches(seen.fine_tune))
    assert len(batches) == seen.steps(seen.fine_tune) == 1077 // 64
    assert seen.images_seen == 64 + 64 * len(batches)
    seen.validation, seen.train  # noqa: B018
    assert seen.images_seen == 64 + 64 * len(batches) + 180 + 1077


def test_batches_depend_on_the_seed_and_on_the_pass_alone(make_data):
    first, same, other = (next(iter(make_data("vit", seed).batches(make_data("vit").fine_tune)))[0] for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    seen = make_data("vit")
    one, two = (next(iter(seen.batches(seen.fine_tune)))[0] for _ in range(2))
    assert not torch.equal(one, two)


def test_generators_depend_on_seed_and_name_alone(make_data):
    def draw(seed, name):
        return float(torch.rand((), generator=make_data("vit", seed).generator(name)))

    assert draw(0, "a") == draw(0, "a") and len({draw(0, "a"), draw(0, "b"), draw(1, "a")}) == 3


def test_no_augmentation_gives_the_images_back(track_data):
    images = track_data.train.images[:4]
    still = AugmentParams(degrees=0, shift=0, scale=0)
    torch.testing.assert_close(data.augmented(images, still, torch.Generator().manual_seed(0)), images, rtol=1e-4, atol=1e-4)


def test_narrower_models_need_fewer_macs_and_full_width_is_the_model(make_data, make_model):
    for name in ("resnet", "mobilenet", "vit", "mixer"):
        seen = make_data(name)
        counts = [seen.macs(seen.narrower(width).eval()) for width in (0.25, 0.5, 1.0)]
        assert counts == sorted(counts) and counts[-1] == seen.macs(make_model(name))


def test_unknown_datasets_models_and_too_many_calibration_images_are_one_line(track):
    with pytest.raises(UserError, match="did you mean 'digits'"):
        data.load(track.model_copy(update={"dataset": "digit"}))
    with pytest.raises(UserError, match="calibration asks for 5000 images but train has 1077"):
        data.load(track.model_copy(update={"calibration": 5000}))
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        models.build(track.models["resnet"].model_copy(update={"timm": "renset18"}), 1, 10)
    with pytest.raises(UserError, match="timm cannot create 'resnet_small'"):
        models.build(track.models["resnet"].model_copy(update={"args": {"depht": 3}}), 1, 10)


def test_schedules_are_values(make_data):
    seen = make_data("vit")
    assert replace(seen.scratch, epochs=3).epochs == 3 and seen.scratch.epochs == 1
