"""The ladder by hand, a level switch, exact counts, SparseGPT's worked example at
several levels at once, and the paper's claim against uniform sparsity.
"""

import copy

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from methods import evopress_sparsity
from methods.evopress_sparsity import EvoPressSparsity, ladder, pruned, uniform
from methods.parts.allocation.evolve import children
from methods.parts.network.layers import prunable
from methods.parts.pruning.masks import lowest
from methods.parts.quantization.levels import logits
from methods.parts.training.losses import soft_loss


@pytest.fixture
def make_uneven(make_model):
    """Build a ViT of two blocks, the second of which counts much more than the
    first.
    """

    def make():
        model = make_model("vit")
        model.blocks = model.blocks[:2]
        with torch.no_grad():
            for layer in prunable(model.blocks[0]).values():
                layer.weight.mul_(0.1)
            for layer in prunable(model.blocks[1]).values():
                layer.weight.mul_(4)
        return model

    return make


def zeros_of(model):
    return [int((layer.weight == 0).sum()) for layer in prunable(model).values()]


def sizes_of(model):
    return [layer.weight.numel() for layer in prunable(model).values()]


def test_a_layer_of_100_at_70_percent_has_the_levels_that_lie_within_it():
    assert ladder(30, 100, 20) == [10, 30, 50, 70, 90]
    assert ladder(30, 100, 3) == list(range(30 - 24, 30 + 24 + 1, 3))  # 8 to either side
    assert ladder(30, 100, 80) == [30]  # too small for a step
    assert ladder(100, 100, 0) == [100]


@pytest.mark.parametrize(("s", "kept"), [(0.5, 55), (0.7, 33), (0.75, 27), (0.0, 111)])
def test_uniform_sparsity_keeps_no_weight_too_many_and_each_layer_its_share(s, kept):
    found = uniform(s, [10, 1, 100])
    assert sum(found) == kept
    assert all(abs(k - kept / 111 * size) < 1 for k, size in zip(found, [10, 1, 100], strict=True))


def test_a_switch_moves_the_same_number_of_weights_from_one_layer_to_another_whatever_their_sizes():
    sizes, generator = [400, 90, 10, 1000, 250], torch.Generator().manual_seed(0)
    even = uniform(0.7, sizes)
    keep = [ladder(k, size, 20) for k, size in zip(even, sizes, strict=True)]
    parent = tuple(levels.index(k) for levels, k in zip(keep, even, strict=True))
    found = children(parent, 40, keep, sum(even), generator)
    assert len(found) == 40
    for state in found:
        moved = [levels[v] - k for levels, v, k in zip(keep, state, even, strict=True)]
        assert sum(moved) == 0 and moved[2] == 0  # the third is too small for a step
        # one to three switches
        assert all(m % 20 == 0 for m in moved) and 20 <= sum(map(abs, moved)) // 2 <= 60


def test_sparsegpt_s_pair_becomes_one_and_a_half_at_one_level_and_stays_or_goes_at_others():
    W, H = torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    expected = torch.tensor([[[0.0, 0.0]], [[0.0, 1.5]], [[1.0, 1.0]]])
    # damping is 1 % here
    torch.testing.assert_close(pruned(W, H, [2, 1, 0]), expected, atol=0.01, rtol=0)


def test_uncorrelated_inputs_zero_the_lowest_w_squared_times_h_at_every_level():
    W, h = (
        torch.randn(8, 64, generator=torch.Generator().manual_seed(0)),
        torch.linspace(0.1, 2, 64).double(),
    )
    h[5] = 0
    damped = (h + (h == 0) + 0.01 * (h + (h == 0)).mean()) * (h > 0)
    for zeros, Q in zip((500, 256, 10), pruned(W, h.diag(), [500, 256, 10]), strict=True):
        assert torch.equal(Q, W.masked_fill(lowest(W.square() * damped, zeros), 0))


def test_levels_made_at_once_are_those_made_one_by_one_and_their_zeros_exact():
    generator = torch.Generator().manual_seed(1)
    x, W = (
        torch.randn(600, 200, generator=generator) @ torch.randn(200, 200, generator=generator),
        torch.randn(17, 200, generator=generator),
    )
    H, zeros = (x.T @ x).double(), [3001, 1700, 999, 1]
    found = pruned(W, H, zeros)
    for k, Q in zip(zeros, found, strict=True):
        assert int((Q == 0).sum()) == k
        torch.testing.assert_close(Q, pruned(W, H, [k])[0])


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_as_many_weights_as_asked_for_are_zero_and_each_layer_is_whole_steps_off_uniform(
    make_model, make_data, name
):
    model = EvoPressSparsity(0.7, generations=1, offspring=3).compress(
        make_model(name), make_data(name)
    )
    sizes, zeros = sizes_of(model), zeros_of(model)
    assert 0 <= sum(zeros) - 0.7 * sum(sizes) < 1
    step = round(sum(sizes) / len(sizes) / evopress_sparsity.STEPS)
    off = [size - z - k for z, size, k in zip(zeros, sizes, uniform(0.7, sizes), strict=True)]
    assert all(moved % step == 0 for moved in off) and sum(map(abs, off)) <= 6 * step


def test_without_generations_all_layers_have_the_same_share(make_model, make_data):
    model = EvoPressSparsity(0.6, generations=0).compress(make_model("vit"), make_data("vit"))
    assert all(
        abs(z - 0.6 * size) <= 1 for z, size in zip(zeros_of(model), sizes_of(model), strict=True)
    )


def test_the_search_keeps_closer_to_dense_than_uniform_and_spares_the_block_that_matters(
    make_uneven, make_data
):
    data, loss, dense = make_data("vit"), {}, make_uneven()
    target = logits(dense, data.calibration)
    for generations in (0, 12):
        found = EvoPressSparsity(0.7, generations, 8).compress(copy.deepcopy(dense), data)
        loss[generations] = float(soft_loss(logits(found, data.calibration), target, 1.0))
    assert loss[12] < 0.8 * loss[0]
    zeros = zeros_of(found)
    assert sum(zeros[:4]) > sum(zeros[4:])  # four layers a block


def test_the_seed_and_nothing_else_decides_the_search(make_uneven, make_data):
    runs = [
        zeros_of(EvoPressSparsity(0.7, 2, 4).compress(make_uneven(), make_data("vit", seed)))
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_without_passes_the_statistics_of_batch_norms_stay_dense_s(make_model, make_data):
    dense = make_model("resnet")
    for passes in (0, 1):
        found = EvoPressSparsity(0.7, 1, 2, bn_passes=passes).compress(
            copy.deepcopy(dense), make_data("resnet")
        )
        assert torch.equal(found.bn1.running_mean, dense.bn1.running_mean) is (passes == 0)


def test_every_child_is_judged_by_statistics_of_its_own(make_model, make_data, monkeypatch):
    seen = []
    monkeypatch.setattr(
        evopress_sparsity, "recalibrate", lambda model, images: seen.append(len(images))
    )
    EvoPressSparsity(0.7, 1, 3).compress(make_model("resnet"), make_data("resnet"))
    assert seen == [16, 16, 16, 64, 64, 64]


def test_settings_are_checked():
    settings = TypeAdapter(EvoPressSparsity)
    assert settings.validate_python({"sparsity": 0.9, "offspring": 8}) == EvoPressSparsity(
        0.9, offspring=8
    )
    for wrong in ({"sparsity": 1}, {"offspring": 0}, {"generations": -1}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
