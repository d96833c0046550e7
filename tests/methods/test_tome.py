import copy
from functools import partial
from itertools import accumulate

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from methods.parts.tokens import reduce_tokens
from methods.tome import ToMe, bipartite_matching, merge, schedule


def left(tokens, blocks, r, inflect=0.0):
    return list(
        accumulate(
            schedule(tokens, blocks, r, inflect), lambda n, merged: n - merged, initial=tokens
        )
    )[1:]


def test_the_schedules_are_those_worked_out_by_hand():
    assert left(197, 12, 16) == [181, 165, 149, 133, 117, 101, 85, 69, 53, 37, 21, 11]
    assert left(197, 12, 13)[-1] == 41
    assert left(197, 24, 8)[-1] == 7
    assert schedule(197, 12, 8, -1.0) == [16, 14, 13, 11, 10, 8, 7, 5, 4, 2, 1, 0]
    assert schedule(17, 6, 3, 0.0) == [3, 3, 3, 3, 2, 1]


def test_the_best_pair_merges_by_hand():
    # patches 1 (B), 2 (A), 3 (B), 4 (A): 2 is nearly 3's double, 4 is closer to 1 than
    # to 3
    k = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.1, 2.0], [0.0, 1.0], [1.0, 0.5]])[None]
    kept, merged, partner = bipartite_matching(k, 1)
    assert (kept.tolist(), merged.tolist(), partner.tolist()) == ([[1]], [[0]], [[1]])
    x, size = torch.tensor([[[0.0], [1.0], [2.0], [5.0], [4.0]]]), torch.tensor([[1.0, 1, 2, 1, 1]])
    y, sizes = merge(x, size, k[:, None], k[:, None], 1)
    assert y[0, :, 0].tolist() == [0, 4, 1, 3]  # class token, 4, 1, and (2 * 2 + 5) / 3
    assert sizes.tolist() == [[1, 1, 1, 3]]


def test_several_tokens_may_merge_into_one_and_the_class_token_never_does():
    k = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.1]])[None, None]
    x = torch.tensor([0.0, 1.0, 2.0, 8.0, 6.0])[None, :, None]
    y, size = merge(x, None, k, k, 2)
    assert y[0, :, 0].tolist() == [0, 3, 8] and size.tolist() == [[1, 3, 1]]


def test_merging_twins_changes_nothing_when_attention_is_proportional(make_model):
    """By hand: merging every patch with its copy gives the class token that
    the whole sequence gives.
    """
    blocks = list(make_model("vit").blocks)
    cls, patches = torch.randn(3, 1, 48), torch.randn(3, 8, 48)
    x = torch.cat([cls, patches.repeat_interleave(2, 1)], 1)
    model = make_model("vit")
    with torch.no_grad():
        expected = model.blocks(x)[:, 0]
        found = reduce_tokens(model, blocks, [partial(merge, r=8)] + [None] * 5).blocks(x)
    assert found.shape == (3, 9, 48)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("r", "inflect", "tokens"), [(1, 0.0, 11), (2, 0.0, 5), (2, -1.0, 7), (8, 0.0, 2)]
)
def test_sizes_add_up_to_the_first_number_of_tokens(make_model, make_data, r, inflect, tokens):
    model = ToMe(r=r, inflect=inflect).compress(make_model("vit"), make_data("vit"))
    x, size = torch.randn(2, 17, 48), None
    for block in model.blocks:
        x, size = block(x, size)
    assert x.shape == (2, tokens, 48)
    torch.testing.assert_close(size.sum(1), torch.full((2,), 17.0))


@pytest.mark.parametrize("r", [1, 3, 8])
def test_what_an_image_gives_does_not_depend_on_the_others(make_model, make_data, r):
    data = make_data("vit")
    model, images = ToMe(r=r).compress(make_model("vit"), data), data.calibration
    with torch.no_grad():
        torch.testing.assert_close(
            torch.cat([model(image[None]) for image in images]), model(images), rtol=1e-5, atol=1e-5
        )


def test_merging_by_keys_changes_the_logits_less_than_merging_at_random(make_model, make_data):
    model, images = make_model("vit"), make_data("vit").calibration
    generator = torch.Generator().manual_seed(0)

    def at_random(x, size, q, k):
        return merge(x, size, q, torch.randn(k.shape, generator=generator), 3)

    with torch.no_grad():
        dense = model(images)
        errors = [
            (
                reduce_tokens(
                    copy.deepcopy(model), list(model.blocks), [reduction] * 4 + [None] * 2
                )(images)
                - dense
            )
            .norm()
            .item()
            for reduction in (partial(merge, r=3), at_random)
        ]
    assert errors[0] < 0.8 * errors[1]


def test_nothing_is_drawn_and_weights_stay(make_model, make_data):
    data, dense = make_data("vit"), make_model("vit")
    model = ToMe(r=3).compress(make_model("vit"), data)
    assert data.images_seen == 0
    for before, after in zip(dense.parameters(), model.parameters(), strict=True):
        assert torch.equal(before, after)


def test_settings_are_checked():
    settings = TypeAdapter(ToMe)
    assert settings.validate_python({"r": 3, "inflect": -1.0}) == ToMe(3, -1.0)
    for wrong in ({"r": -1}, {"inflect": 2.0}, {"macs": 0.5}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
