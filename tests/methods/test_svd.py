import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from methods.parts.low_rank.factors import factors, rank
from methods.parts.network.layers import prunable, weighted
from methods.svd import SVD, channel, spatial


def matrix(m, n, seed=0):
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


def weights(module):
    return sum(p.numel() for name, p in module.named_parameters() if not name.endswith("bias"))


def test_rank_one_keeps_the_larger_entry_of_the_diagonal():
    W = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    A, B = factors(W, 1)
    torch.testing.assert_close(A @ B, torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
    assert (W - A @ B).norm().item() == pytest.approx(1)


def test_rank_follows_the_share_of_weights_and_is_zero_without_saving():
    assert rank(64, 64, 0.5) == 16  # 0.5 * 4096 / 128
    assert rank(64, 64, 1.0) == 0  # 32 * 128 = 4096
    assert rank(10, 30, 0.01) == 1
    assert rank(1, 30, 0.5) == 0


def test_full_rank_is_exact():
    W = matrix(20, 12)
    A, B = factors(W, 12)
    torch.testing.assert_close(A @ B, W, atol=1e-5, rtol=0)


@pytest.mark.parametrize("r", [1, 5, 11])
def test_squared_error_is_the_sum_of_the_dropped_squares_and_beats_random_projection(r):
    W = matrix(20, 12)
    A, B = factors(W, r)
    basis = torch.linalg.qr(matrix(12, r, seed=1)).Q
    error = (W - A @ B).square().sum()
    torch.testing.assert_close(error, torch.linalg.svdvals(W)[r:].square().sum())
    assert error < (W - W @ basis @ basis.T).square().sum()


def test_a_linear_of_low_rank_becomes_two_layers_that_compute_the_same():
    layer = nn.Linear(40, 30)
    layer.weight.data = matrix(30, 4) @ matrix(4, 40, seed=1)
    pair, x = channel(layer, 0.3), matrix(7, 40)
    assert weights(pair) == 5 * (30 + 40)  # 0.3 * 1200 / 70 = 5.1
    assert pair[0].bias is None
    torch.testing.assert_close(pair(x), layer(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stride", [1, (2, 1)])
@pytest.mark.parametrize("padding", [0, (1, 2)])
@pytest.mark.parametrize("dilation", [1, (1, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_of_low_rank_becomes_two_layers_that_compute_the_same(
    stride, padding, dilation, bias
):
    layer, x = (
        nn.Conv2d(8, 10, (3, 5), stride, padding, dilation, bias=bias),
        torch.randn(2, 8, 12, 13),
    )
    layer.weight.data = (matrix(10, 2) @ matrix(2, 120, seed=1)).view(10, 8, 3, 5)
    torch.testing.assert_close(channel(layer, 0.4)(x), layer(x), atol=1e-3, rtol=1e-4)
    layer.weight.data = (
        (matrix(50, 2) @ matrix(2, 24, seed=1)).view(10, 5, 8, 3).permute(0, 2, 3, 1)
    )
    torch.testing.assert_close(spatial(layer, 0.4)(x), layer(x), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("scheme", [channel, spatial])
def test_a_pair_has_at_most_its_share_of_the_weights(scheme):
    layer = nn.Conv2d(16, 24, 3)
    for rho in (0.1, 0.5, 0.9):
        # one rank costs 24 + 144, or 72 + 48
        assert rho * 3456 - 168 < weights(scheme(layer, rho)) <= rho * 3456
    assert torch.equal(scheme(layer, 0.5)[1].bias, layer.bias)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_svd_that_keeps_all_leaves_the_model_as_it_is(make_model, make_data, name):
    data = make_data(name)
    model, x = SVD(1.0).compress(make_model(name), data), data.calibration[:4]
    assert torch.equal(model(x), make_model(name)(x))


@pytest.mark.parametrize("scheme", ["channel", "spatial"])
def test_svd_shrinks_all_but_stem_and_classifier_and_needs_images_only_for_batch_norms(
    make_model, make_data, scheme
):
    for name, seen in (("resnet", 64), ("mobilenet", 64), ("vit", 0), ("mixer", 0)):
        data, dense = make_data(name), make_model(name)
        model = SVD(0.5, scheme).compress(make_model(name), data)
        assert data.images_seen == seen
        for key, layer in weighted(dense).items():
            after = model.get_submodule(key)
            assert weights(after) <= layer.weight.numel() * (0.5 if key in prunable(dense) else 1)
        assert model(torch.randn(2, 1, 16, 16)).isfinite().all()


def test_keeping_nearly_all_changes_the_output_less_than_keeping_a_tenth(make_model, make_data):
    data = make_data("vit")
    x = data.calibration
    error = {
        rho: (SVD(rho).compress(make_model("vit"), data)(x) - make_model("vit")(x)).norm().item()
        for rho in (0.1, 0.95)
    }
    assert error[0.95] < 0.8 * error[0.1]


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(SVD)
    assert settings.validate_python({"rho": 0.3, "scheme": "spatial"}) == SVD(0.3, "spatial")
    for wrong in ({"rho": 0}, {"rho": 1.5}, {"scheme": "tucker"}, {"rank": 3}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
