import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from harness.point import store
from methods.layerwise_bits import LayerwiseBits, by_lim, layers_of, lim, stored_bits, to_lower, zd
from methods.parts.network.layers import blocks, prunable

MODELS = ["resnet", "mobilenet", "vit", "mixer"]


def average(model):
    codes = [store.codes_of(model)[f"{name}.weight"] for name in prunable(model)]
    bits = sum(
        code.bits * code.codes.numel() + 16 * code.scale.numel() + 8 * code.zero.numel()
        for code in codes
    )
    return bits / sum(code.codes.numel() for code in codes)


@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 7, 4, 4)])
def test_a_block_that_changes_nothing_scores_minus_one_and_one_that_turns_its_input_around_plus_one(
    shape,
):
    X = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lim(X, X), torch.tensor([-1.0, -1.0], dtype=torch.float64))
    torch.testing.assert_close(lim(X, -3 * X), torch.tensor([1.0, 1.0], dtype=torch.float64))


def test_lim_is_the_mean_over_tokens_and_not_the_cosine_of_the_flattened_block():
    X, Y = torch.tensor([[[100.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[100.0, 0.0], [1.0, 0.0]]])
    assert lim(X, Y).tolist() == [-0.5]
    image = X.transpose(1, 2).unsqueeze(3)  # tokens as positions
    assert lim(image, Y.transpose(1, 2).unsqueeze(3)).tolist() == [-0.5]


def test_zd_counts_the_one_large_weight_of_five():
    # mean 2, deviation 4: z = -0.5 and 2
    assert zd(torch.tensor([0.0, 0.0, 0.0, 0.0, 10.0])) == pytest.approx(0.2)
    assert zd(torch.tensor([0.0, 0.0, 0.0, 0.0, -10.0])) == 0  # signed
    assert zd(torch.ones(4)) == 0


def test_an_average_of_3_5_moves_the_least_important_of_four_equal_blocks():
    high, low = dict.fromkeys("abcd", 400), dict.fromkeys("abcd", 200)
    assert to_lower(high, low, "cadb", 3.5 * 400) == ["c"]
    assert to_lower(high, low, "cadb", 3.49 * 400) == ["c", "a"]
    assert to_lower(high, low, "cadb", 4 * 400) == []
    with pytest.raises(ValueError, match="raise average_bits"):
        to_lower(high, low, "ca", 2.9 * 400)


def test_stored_bits_are_those_of_the_codes(make_model, make_data):
    assert stored_bits(3, 70, 2, 64) == 2 * 210 + 24 * 3 * 2
    model = LayerwiseBits(3.5).compress(make_model("vit"), make_data("vit"))
    codes = [store.codes_of(model)[f"{name}.weight"] for name in prunable(model)]
    assert sum(
        stored_bits(*code.codes.shape, code.bits, code.group) for code in codes
    ) == pytest.approx(average(model) * 165888)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("score", ["lim", "zd"])
@pytest.mark.parametrize("bits", [4.1, 3.9])
def test_the_average_is_met_and_the_next_block_would_not_have_been_needed(
    make_model, make_data, name, score, bits
):
    model = LayerwiseBits(bits, score).compress(make_model(name), make_data(name))
    groups = layers_of(model)
    weights = {
        block: sum(layer.weight.numel() for layer in layers.values())
        for block, layers in groups.items()
    }
    lowered = [
        block
        for block, layers in groups.items()
        if {layer.weight_codes.bits for layer in layers.values()} == {2}
    ]
    assert (
        lowered
        and bits - 2.7 * max(weights.values()) / sum(weights.values()) < average(model) <= bits
    )
    assert "" not in lowered


@pytest.mark.parametrize("name", MODELS)
def test_blocks_that_change_the_shape_stay_high_for_lim_and_are_free_for_zd(make_model, name):
    model, shapes = make_model(name), {}
    for key, block in blocks(model).items():
        block.register_forward_hook(
            lambda _m, args, output, key=key: shapes.update({key: (args[0].shape, output.shape)})
        )
    model(torch.zeros(1, 1, 16, 16))
    assert LayerwiseBits(score="lim").free(model) == [
        key for key, (before, after) in shapes.items() if before == after
    ]
    assert LayerwiseBits(score="zd").free(model) == list(shapes)


@pytest.mark.parametrize("score", ["lim", "zd"])
def test_the_blocks_lowered_are_the_least_important(make_model, make_data, score):
    model = make_model("vit")
    with torch.no_grad():
        model.blocks[2].attn.proj.weight.zero_()
        model.blocks[2].mlp.fc2.weight.zero_()
        model.blocks[2].attn.proj.bias.zero_()
        model.blocks[2].mlp.fc2.bias.zero_()
        # the block changes nothing: LIM = -1; a third of its weights is far above the
        # mean: ZD = 1/3
        model.blocks[2].mlp.fc1.weight.fill_(1)
    model = LayerwiseBits(4.1, score).compress(model, make_data("vit"))
    assert [
        block
        for block, layers in layers_of(model).items()
        if next(iter(layers.values())).weight_codes.bits == 2
    ] == ["blocks.2"]


def test_the_score_of_a_block_is_its_mean_over_the_calibration_images(make_model, make_data):
    model, seen = make_model("resnet"), []
    model.layer1[1].register_forward_hook(lambda _m, args, output: seen.append((args[0], output)))
    found = by_lim(model, ["layer1.1"], make_data("resnet"))["layer1.1"]
    X, Y = (torch.cat(parts).movedim(1, -1).flatten(0, 2) for parts in zip(*seen, strict=True))
    assert found == pytest.approx(
        float(-((X * Y).sum(1) / (X.norm(dim=1) * Y.norm(dim=1))).mean()), abs=1e-5
    )


def test_an_average_above_the_high_bits_keeps_all_high_and_32_keeps_the_model(
    make_model, make_data
):
    model = LayerwiseBits(10).compress(make_model("mixer"), make_data("mixer"))
    assert {layer.weight_codes.bits for layer in prunable(model).values()} == {4}
    assert not store.codes_of(LayerwiseBits(32).compress(make_model("mixer"), make_data("mixer")))


def test_a_budget_below_all_low_is_skipped_with_its_reason_and_refused(make_model, make_data):
    method = LayerwiseBits(2.5, high=8, low=4)
    assert "4.3" in method.skip(make_model("vit"))
    with pytest.raises(ValueError, match="raise average_bits"):
        method.compress(make_model("vit"), make_data("vit"))


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(LayerwiseBits)
    assert settings.validate_python({"average_bits": 6, "high": 8, "low": 4}) == LayerwiseBits(
        6, high=8, low=4
    )
    for wrong in (
        {"average_bits": 1},
        {"high": 4, "low": 4},
        {"high": 3, "low": 4},
        {"score": "random"},
    ):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
