"""The track's data: a fixed, stratified split, nothing of the test split in reach of a
method, and everything drawn is counted.
"""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.data import Source, dataset, splits
from harness.models import build
from harness.point.method_data import MethodData
from leaderboard.records.errors import UserError
from leaderboard.records.recipes import NormaliseParams
from methods import Data
from tests.conftest import loaded


def rows(images):
    return {image.numpy().tobytes() for image in images}


def test_splits_are_about_60_10_30_percent_stratified_and_disjoint(track_data):
    sizes = [
        len(split.labels) for split in (track_data.train, track_data.validation, track_data.test)
    ]
    assert sum(sizes) == 1797 and sizes == [1077, 180, 540]
    assert all(50 <= int(count) <= 58 for count in track_data.test.labels.bincount())
    parts = [
        rows(split.images) for split in (track_data.train, track_data.validation, track_data.test)
    ]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert rows(track_data.calibration) <= parts[0]


def test_the_content_is_the_one_that_results_were_made_with(params):
    assert (
        splits.content_hash(
            dataset("digits").load(), params.tracks["digits"], loaded(params.tracks["digits"])
        )
        == "24d334f8b9277d3e780be4282e45083ea5fa2f7d27cc388c1dd602e71fbf96e8"
    )


def test_train_is_normalised_by_itself(track_data):
    assert abs(float(track_data.train.images.mean())) < 1e-5 and float(
        track_data.train.images.std()
    ) == pytest.approx(1, abs=1e-4)


def test_what_methods_see_holds_no_test_image_and_no_path(stored_data, make_data):
    seen = make_data("vit")
    holders = [value for value in vars(seen).values() if isinstance(value, splits.Learn)]
    tensors = [
        tensor for holder in holders for tensor in holder.tensors.values() if tensor.ndim == 4
    ]
    assert tensors and not any(rows(tensor) & rows(stored_data.test.images) for tensor in tensors)
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
    first, same, other = (
        next(iter(make_data("vit", seed).batches(make_data("vit").fine_tune)))[0]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)
    seen = make_data("vit")
    one, two = (next(iter(seen.batches(seen.fine_tune)))[0] for _ in range(2))
    assert not torch.equal(one, two)


def test_generators_depend_on_seed_and_name_alone(make_data):
    def draw(seed, name):
        return float(torch.rand((), generator=make_data("vit", seed).generator(name)))

    assert draw(0, "a") == draw(0, "a") and len({draw(0, "a"), draw(0, "b"), draw(1, "a")}) == 3


def test_a_part_of_an_epoch_is_that_many_batches_of_its_first_pass(make_data):
    seen, whole = make_data("vit"), make_data("vit")
    budget = replace(seen.fine_tune, epochs=1.5)
    labels = [labels for _, labels in seen.batches(budget)]
    assert len(labels) == seen.steps(budget) == 24
    assert torch.equal(
        torch.cat(labels)[: 16 * 64],
        torch.cat([labels for _, labels in whole.batches(whole.fine_tune)]),
    )


def test_a_model_may_have_a_recipe_of_its_own(track, data_folder):
    own = track.models["vit"].model_copy(
        update={"fine_tune": track.fine_tune.model_copy(update={"epochs": 7})}
    )
    params = track.model_copy(update={"models": {**track.models, "vit": own}})
    learn = splits.Learn.read(data_folder, torch.device("cpu"))
    assert [
        MethodData(learn, params, model, 0, "fine-tune").fine_tune.epochs
        for model in ("vit", "mixer")
    ] == [7, 1]


def test_uint8_pixels_are_normalised_by_the_numbers_of_the_track(track):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), dtype=np.uint8)
    index, labels = np.arange(40), np.arange(40) % 10
    source = Source(
        "noise", pixels, labels, index[:20], index[20:30], index[30:], {"images": "x"}, 10
    )
    params = track.model_copy(
        update={
            "calibration": 4,
            "normalise": NormaliseParams(mean=[0.5, 0.25, 0], std=[0.5, 0.5, 1]),
        }
    )
    found = loaded(params, source)
    assert found.train.images.dtype == torch.uint8 and torch.equal(
        found.test.images, torch.from_numpy(pixels[30:])
    )
    wanted = (pixels[:20] / 255 - np.array([0.5, 0.25, 0])[:, None, None]) / np.array(
        [0.5, 0.5, 1]
    )[:, None, None]
    np.testing.assert_allclose(
        splits.normalised(found.train.images, found.mean, found.std), wanted, atol=1e-6
    )
    own = loaded(params.model_copy(update={"normalise": "train"}), source)
    train = splits.normalised(own.train.images, own.mean, own.std)
    assert (
        float(train.mean((0, 2, 3)).abs().max()) < 1e-4
        and float((train.std((0, 2, 3)) - 1).abs().max()) < 1e-3
    )
    with pytest.raises(
        UserError, match="names 1 means and 3 deviations, but 'digits' has 3 channels"
    ):
        loaded(
            params.model_copy(update={"normalise": NormaliseParams(mean=[0.5], std=[1, 1, 1])}),
            source,
        )


def test_a_rehearsal_takes_the_first_images_of_each_split(track, stored_data):
    few = loaded(track.model_copy(update={"first": 70}))
    assert len(few.train.labels) == len(few.validation.labels) == len(few.test.labels) == 70
    assert torch.equal(few.test.images, stored_data.test.images[:70])


def test_narrower_models_need_fewer_macs_and_full_width_is_the_model(make_data, make_model):
    for name in ("resnet", "mobilenet", "vit", "mixer"):
        seen = make_data(name)
        counts = [seen.macs(seen.narrower(width).eval()) for width in (0.25, 0.5, 1.0)]
        assert counts == sorted(counts) and counts[-1] == seen.macs(make_model(name))


def test_unknown_datasets_models_and_too_many_calibration_images_are_one_line(track):
    with pytest.raises(UserError, match="did you mean 'digits'"):
        loaded(track.model_copy(update={"dataset": "digit"}))
    with pytest.raises(UserError, match="calibration asks for 5000 images but train has 1077"):
        loaded(track.model_copy(update={"calibration": 5000}))
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        build.build(track.models["resnet"].model_copy(update={"timm": "renset18"}), 1, 10)
    with pytest.raises(UserError, match="timm cannot create 'resnet_small'"):
        build.build(track.models["resnet"].model_copy(update={"args": {"depht": 3}}), 1, 10)


def test_schedules_are_values(make_data):
    seen = make_data("vit")
    assert replace(seen.scratch, epochs=3).epochs == 3 and seen.scratch.epochs == 1
