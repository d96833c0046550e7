import pytest
import torch
from torch import nn

from methods.parts.low_rank.factors import factors, pair
from methods.parts.low_rank.features import components, divergences, feature_pca, mimic, mimicking
from methods.parts.network.layers import prunable


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def outputs(seed=0, samples=300, inputs=20, features=12):
    """Return a weight, a bias and correlated inputs that are far from centred."""
    x = drawn(samples, inputs, seed=seed) @ drawn(inputs, inputs, seed=seed + 1) + 3 * drawn(
        inputs, seed=seed + 2
    )
    return (
        drawn(features, inputs, seed=seed + 3).double(),
        drawn(features, seed=seed + 4).double(),
        x.double(),
    )


def of(y):
    return components(len(y), y.sum(0), y.T @ y)


def error(found, y):
    return (found - y).square().sum(1).mean()


def test_components_of_four_points_by_hand():
    found = of(torch.tensor([[1.0, 5.0], [3.0, 5.0], [2.0, 5.5], [2.0, 4.5]], dtype=torch.float64))
    torch.testing.assert_close(found.mu, torch.tensor([2.0, 5.0], dtype=torch.float64))
    torch.testing.assert_close(found.s, torch.tensor([0.5, 0.125], dtype=torch.float64))
    torch.testing.assert_close(found.U.abs(), torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("r", [0, 1, 5, 11, 12])
def test_the_mean_squared_error_is_the_sum_of_the_dropped_variances(r):
    W, b, x = outputs()
    y = x @ W.T + b
    A, B, c = mimic(W, b, of(y), r)
    torch.testing.assert_close(error(x @ B.T @ A.T + c, y), of(y).s[r:].sum(), atol=1e-9, rtol=1e-9)


def test_outputs_in_a_plane_are_exact_at_rank_two_though_the_weight_has_full_rank():
    W, b, x = outputs()
    x = x[:, :2] @ drawn(2, 20, seed=9).double() + drawn(20, seed=10).double()
    y = x @ W.T + b
    assert torch.linalg.matrix_rank(W) == 12
    A, B, c = mimic(W, b, of(y), 2)
    torch.testing.assert_close(x @ B.T @ A.T + c, y)
    L, R = factors(W, 2)
    assert error(x @ (L @ R).T + b, y) > 0.1 * error(b.expand_as(y), y)


@pytest.mark.parametrize("bias", [True, False])
def test_rank_zero_leaves_the_mean(bias):
    W, b, x = outputs()
    y = x @ W.T + b if bias else x @ W.T
    A, B, c = mimic(W, b if bias else None, of(y), 0)
    torch.testing.assert_close(x @ B.T @ A.T + c, y.mean(0).expand_as(y))


def test_no_pair_of_the_rank_of_the_truncated_svd_has_a_larger_error(make_model, make_data):
    images = make_data("vit").calibration
    for name in ("resnet", "vit"):
        model = make_model(name)
        layers = prunable(model)
        features = feature_pca(model, layers, images)
        for key, layer in layers.items():
            seen = []
            handle = layer.register_forward_hook(
                lambda _m, args, y, seen=seen: seen.append((args[0], y))
            )
            with torch.no_grad():
                model(images)
                handle.remove()
                x, y = seen[0]
                r = min(layer.weight.flatten(1).shape) // 3
                ours = (mimicking(layer, features[key], r)(x) - y).square().mean()
                svd = (
                    (pair(layer, *factors(layer.weight.flatten(1), r), layer.bias)(x) - y)
                    .square()
                    .mean()
                )
            assert ours < svd
            torch.testing.assert_close(
                ours.double(), features[key].s[r:].sum() / len(layer.weight), rtol=1e-3, atol=1e-7
            )


@pytest.mark.parametrize(
    "layer", [nn.Linear(20, 12), nn.Conv2d(8, 12, (3, 2), 2, 1, bias=False), nn.Conv2d(8, 12, 1)]
)
def test_a_layer_mimicked_at_full_rank_computes_the_same(layer):
    x = drawn(5, 7, 20) if isinstance(layer, nn.Linear) else drawn(5, 8, 9, 9)
    found = feature_pca(layer, {"": layer}, x)[""]
    torch.testing.assert_close(mimicking(layer, found, 12)(x), layer(x), atol=1e-5, rtol=1e-4)


def test_statistics_do_not_depend_on_how_inputs_fall_into_batches():
    layer, x = nn.Linear(20, 12), drawn(300, 20)
    y = layer(x).detach().double()
    found = feature_pca(layer, {"": layer}, x)[""]
    torch.testing.assert_close(found.mu, y.mean(0))
    torch.testing.assert_close(found.U @ found.s.diag() @ found.U.T, torch.cov(y.T, correction=0))


def test_the_divergence_of_a_replaced_module_is_that_of_its_predictions_and_the_model_is_left_as_it_was():
    model, other, x = (
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)),
        nn.Linear(6, 5),
        drawn(128, 6),
    )
    own = model[0]
    p, q = model(x).softmax(1), model[2](model[1](other(x))).softmax(1)
    moved = divergences(model, {"0": other, "2": model[2]}, x)
    assert moved["0"] == pytest.approx((p * (p / q).log()).sum(1).mean().item(), rel=1e-4)
    assert moved["2"] == pytest.approx(0, abs=1e-7)
    assert model[0] is own
