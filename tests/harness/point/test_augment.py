"""Augmentation: what each part does to an image, and that no part draws when it is
off.
"""

import pytest
import torch

from harness.point.augment import cropped, cut_out, warped
from leaderboard.records.params import AugmentParams

OFF = AugmentParams()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_nothing_asked_for_changes_nothing_and_draws_nothing():
    images, draws = torch.rand(4, 3, 8, 8), generator()
    assert (
        cropped(images, OFF, draws) is images
        and warped(images, OFF, draws) is images
        and cut_out(images, OFF, draws) is images
    )
    assert torch.equal(draws.get_state(), generator().get_state())


def test_a_crop_is_a_window_of_the_image_in_a_black_frame_and_every_offset_occurs():
    image = torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 4, 4)
    framed = torch.nn.functional.pad(image, (1, 1, 1, 1))[0, 0]
    windows = {framed[y : y + 4, x : x + 4].numpy().tobytes() for y in range(3) for x in range(3)}
    found = cropped(image.expand(400, 1, 4, 4), AugmentParams(crop=1), generator())
    assert (
        found.dtype == torch.uint8
        and {window[0].contiguous().numpy().tobytes() for window in found} == windows
    )


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_flip_mirrors_left_and_right_in_its_share_of_the_images(share):
    images = torch.rand(2000, 2, 3, 5)
    found = cropped(images, AugmentParams(flip=share), generator())
    flipped = (found == images.flip(3)).flatten(1).all(1)
    assert torch.equal(found[~flipped], images[~flipped]) and float(
        flipped.float().mean()
    ) == pytest.approx(share, abs=0.03)


def test_cutout_sets_a_square_to_the_mean_that_may_stick_out_of_the_image():
    found = cut_out(torch.ones(3000, 2, 8, 8), AugmentParams(cutout=4), generator()) == 0
    assert torch.equal(found[:, 0], found[:, 1])
    areas = found[:, 0].flatten(1).sum(1)
    # a centre in the first corner leaves 2 x 2
    assert int(areas.max()) == 16 and int(areas.min()) == 4
    rows = found[:, 0].any(2).sum(1) * found[:, 0].any(1).sum(1)
    assert torch.equal(rows, areas)
    assert bool(found[:, 0].any(0).all())


def test_an_affine_map_of_nothing_gives_the_images_back_and_a_quarter_turn_turns_them():
    images = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(
        warped(images, AugmentParams(degrees=1e-9), generator()), images, rtol=1e-4, atol=1e-4
    )
    moved = warped(images, AugmentParams(degrees=40, shift=0.2, scale=0.2), generator())
    assert moved.shape == images.shape and not torch.equal(moved, images)


def test_draws_depend_on_the_generator_alone():
    images, params = torch.rand(8, 3, 8, 8), AugmentParams(crop=2, flip=0.5, cutout=3)
    first, same, other = (
        cut_out(cropped(images, params, draws), params, draws)
        for draws in (generator(), generator(), generator(1))
    )
    assert torch.equal(first, same) and not torch.equal(first, other)
