"""Exact counts, ties by position, and recovery only where there is something to
recover.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.parts.pruning.masks import lowest, no_norms, recover


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.data())
def test_exactly_k_entries_are_marked_none_above_an_unmarked_one(values, data):
    k = data.draw(st.integers(0, len(values)))
    score = torch.tensor(values, dtype=torch.float32)
    mask = lowest(score, k)
    assert int(mask.sum()) == k
    if 0 < k < len(values):
        assert score[mask].max() <= score[~mask].min()


def test_ties_go_to_the_lower_flat_index():
    assert lowest(torch.ones(2, 3), 4).tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize(
    ("name", "passes", "drawn"),
    [("resnet", 1, 64), ("resnet", 2, 128), ("resnet", 0, 0), ("vit", 1, 0)],
)
def test_recovery_draws_images_only_for_models_with_batchnorm(
    make_model, make_data, name, passes, drawn
):
    seen = make_data(name)
    recover(make_model(name), seen, passes)
    assert seen.images_seen == drawn


def test_a_setting_that_would_repeat_another_is_skipped_with_its_reason(make_model):
    assert (
        no_norms(make_model("vit"), 0)
        and no_norms(make_model("vit"), 1) is None
        and no_norms(make_model("resnet"), 0) is None
    )
