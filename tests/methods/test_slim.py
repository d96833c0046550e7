"""The widest model that fits, its limiting cases, and that it is trained from
scratch.
"""

import pytest

from harness.run import registry
from methods.parts.training.slim import widest


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
@pytest.mark.parametrize("ratio", [0.75, 0.5, 0.25])
def test_the_widest_model_never_exceeds_the_budget_and_uses_most_of_it(
    make_model, make_data, name, ratio
):
    seen = make_data(name)
    dense = seen.macs(make_model(name))
    used = seen.macs(widest(seen, ratio * dense).eval()) / dense
    assert 0.8 * ratio < used <= ratio


def test_the_full_budget_is_the_dense_architecture_and_an_impossible_one_the_narrowest(
    make_model, make_data
):
    seen = make_data("vit")
    dense = seen.macs(make_model("vit"))
    assert seen.macs(widest(seen, dense).eval()) == dense
    assert seen.macs(widest(seen, 1).eval()) == seen.macs(seen.narrower(1 / 256).eval())


def test_slim_trains_from_scratch_by_the_track_s_recipe(make_model, make_data):
    seen = make_data("mixer")
    model = registry.configure("slim", {"macs": 0.5}).compress(make_model("mixer"), seen)
    assert seen.images_seen == seen.steps(seen.scratch) * seen.scratch.batch
    assert seen.macs(model) <= 0.5 * seen.macs(make_model("mixer")) and not model.training
