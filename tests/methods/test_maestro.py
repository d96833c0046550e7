from itertools import islice

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.nn.functional import cross_entropy

from methods.maestro import (
    Components,
    Maestro,
    OrderedDropout,
    cut,
    decompose,
    importance,
    lasso_gradient,
    pairs,
    plain,
    relative,
    suffix_norms,
)
from methods.parts.network.layers import prunable


def matrix(m, n, seed=0):
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


def linear(W):
    layer = nn.Linear(W.shape[1], W.shape[0])
    layer.weight.data = W.clone()
    return layer


def weights(model):
    return sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    )


def diagonal(*values):
    return decompose(linear(torch.diag(torch.tensor(values))))


def two_layers():
    model = nn.Sequential(linear(matrix(6, 5)), nn.ReLU(), linear(matrix(4, 6, 1)))
    parts = {name: decompose(model.get_submodule(name)) for name in ("0", "2")}
    return model, parts, OrderedDropout(model, parts, torch.Generator().manual_seed(0))


def test_the_importances_of_the_diagonal_are_the_sums_of_its_tails_and_a_threshold_of_2_keeps_rank_2():
    part = diagonal(3.0, 2.0, 1.0)
    torch.testing.assert_close(importance(part.A, part.B), torch.tensor([6.0, 3.0, 1.0]))
    torch.testing.assert_close(suffix_norms(part.B).square(), torch.tensor([6.0, 3.0, 1.0]))
    OrderedDropout(part.layer, {"": part}, torch.Generator()).shrink(2 / 6)
    assert part.kept == 2
    torch.testing.assert_close(part.layer.weight, torch.diag(torch.tensor([3.0, 2.0, 0.0])))


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_a_model_just_decomposed_is_dense_and_is_so_again_when_merged(make_model, make_data, name):
    model, x = make_model(name), make_data(name).calibration[:4]
    expected = model(x)
    parts = {key: decompose(layer) for key, layer in prunable(model).items()}
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-4)
    for key, part in parts.items():
        model.set_submodule(key, plain(part, part.kept))
    assert model.state_dict().keys() == make_model(name).state_dict().keys()
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-4)


def test_the_gradient_of_the_hierarchical_lasso_is_that_of_its_definition():
    F = matrix(5, 7).requires_grad_()
    sum(F[i:].norm() for i in range(5)).backward()
    torch.testing.assert_close(lasso_gradient(F.detach()), F.grad)
    cut_off = torch.cat([F.detach(), torch.zeros(2, 7)])
    torch.testing.assert_close(lasso_gradient(cut_off), torch.cat([F.grad, torch.zeros(2, 7)]))


def test_the_samples_are_all_pairs_of_a_layer_and_a_rank_before_one_comes_again():
    drawn = list(islice(pairs([2, 3], torch.Generator().manual_seed(0)), 20))
    for start in range(0, 20, 5):
        assert sorted(drawn[start : start + 5]) == [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]
    assert len({tuple(drawn[start : start + 5]) for start in range(0, 20, 5)}) > 1


def test_a_step_trains_on_the_full_pass_and_on_soft_targets_for_the_pass_cut_to_the_first_components_of_one_layer():
    model, parts, ordered = two_layers()
    x, y, (A, B) = matrix(8, 5, 2), torch.arange(8) % 4, (parts["2"].A, parts["2"].B)
    for key, b in (("0", 5), ("2", 2)):
        ordered.partial_masks[f"{key}.parametrizations.weight.0.mask"].copy_(
            (torch.arange(len(parts[key].components.mask)) < b).float()
        )
    found = ordered(x)
    torch.testing.assert_close(found, model(x))
    cross_entropy(found, y).backward()
    gradient = A.grad.clone()
    A.grad = None
    hidden, full = model[1](model[0](x)), model(x)
    partial = hidden @ (A[:, :2] @ B[:2]).T + model[2].bias
    (cross_entropy(full, y) + cross_entropy(partial, full.detach().softmax(1))).backward()
    torch.testing.assert_close(gradient, A.grad)


def test_masks_change_in_place_and_are_cut_in_one_layer_at_a_time():
    _, parts, ordered = two_layers()
    places, seen = [mask.data_ptr() for mask in ordered.partial_masks.values()], set()
    for _ in range(9):
        ranks = [int(mask.sum()) for mask in ordered.partial_masks.values()]
        assert ranks[0] == 5 or ranks[1] == 4
        seen.add(tuple(ranks))
        ordered.sample()
    assert len(seen) == 8  # of 5 + 4 pairs both with all components are the full pass
    ordered.shrink(0.5)
    assert [mask.data_ptr() for mask in ordered.partial_masks.values()] == places
    assert [part.kept for part in parts.values()] == [
        int((relative_of(W) >= 0.5).sum()) for W in (matrix(6, 5), matrix(4, 6, 1))
    ]


def relative_of(W):
    s = torch.linalg.svdvals(W)
    return s.flip(0).cumsum(0).flip(0) / s.sum()


def test_components_that_are_gone_are_not_moved_by_the_lasso_and_do_not_come_back():
    _, parts, ordered = two_layers()
    ordered.shrink(0.5)
    part = parts["0"]
    part.A.grad, part.B.grad = torch.zeros_like(part.A), torch.zeros_like(part.B)
    parts["2"].A.grad, parts["2"].B.grad = (
        torch.zeros_like(parts["2"].A),
        torch.zeros_like(parts["2"].B),
    )
    ordered.add_lasso(0.1)
    torch.testing.assert_close(
        part.A.grad[:, : part.kept].T, 0.1 * lasso_gradient(part.A.detach()[:, : part.kept].T)
    )
    assert not part.A.grad[:, part.kept :].any() and not part.B.grad[part.kept :].any()
    kept = part.kept
    part.A.data[:, kept:] = 100
    ordered.shrink(0.0)
    assert part.kept == kept


def test_the_budget_takes_the_least_important_components_of_all_layers_and_gives_back_what_saves_nothing():
    # shares of the first importance: 10 6 3 1 / 10, and 110 10 6 3 / 110
    parts = [diagonal(4.0, 3.0, 2.0, 1.0), diagonal(100.0, 4.0, 3.0, 3.0)]
    torch.testing.assert_close(relative(parts[1]), torch.tensor([110.0, 10.0, 6.0, 3.0]) / 110)
    assert cut(parts, 1.0) == [4, 4]
    # order: the second layer down to 1, then the first; 16 + 8 of 32 remain
    assert cut(parts, 0.9) == [4, 1]
    assert cut(parts, 0.75) == [4, 1]
    assert cut(parts, 0.74) == [1, 1]  # a rank of 2 or 3 is no smaller than 16
    assert cut(parts, 0.01) == [1, 1]
    assert isinstance(plain(parts[0], 3), nn.Linear)
    torch.testing.assert_close(
        parts[0].layer.weight, torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    )
    assert isinstance(plain(parts[1], 1), nn.Sequential)


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
@pytest.mark.parametrize("rho", [0.8, 0.3])
def test_the_share_of_the_weights_is_met_and_hardly_undercut(make_model, name, rho):
    parts = [decompose(layer) for layer in prunable(make_model(name)).values()]
    total = sum(part.layer.weight.numel() for part in parts)
    kept = sum(weights(plain(part, r)) for part, r in zip(parts, cut(parts, rho), strict=True))
    assert rho - 0.02 < kept / total <= rho


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_maestro_that_keeps_all_leaves_the_model_as_it_is(make_model, make_data, name):
    data = make_data(name)
    model = make_model(name)
    assert Maestro(1.0).compress(model, data) is model
    assert data.images_seen == 0


def test_both_phases_share_the_epochs_and_the_result_is_made_of_plain_layers(make_model, make_data):
    data = make_data("vit")
    model = Maestro(0.5, share=0.5).compress(make_model("vit"), data)
    # batches of 64; a vit has no batch norm to re-estimate
    assert data.images_seen == 64 * 2 * (data.steps(data.fine_tune) // 2)
    assert not any("parametriz" in key for key in model.state_dict())
    assert not model.training


def test_ordered_dropout_finds_the_singular_values_of_a_linear_map_in_order_where_plain_training_of_factors_does_not():
    """The paper's claim: on white data, each prefix of the components becomes the best
    approximation of its rank.
    """
    W = (
        torch.linalg.qr(matrix(4, 4)).Q
        @ torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
        @ torch.linalg.qr(matrix(4, 4, 1)).Q
    )
    best = torch.tensor([14.0, 5.0, 1.0, 0.0])  # the sums of the dropped squares

    def errors(dropped):
        part, start = Components(W), matrix(8, 4, 2)
        A, B = (half.clone().requires_grad_() for half in start.split(4))
        optimiser = torch.optim.Adam([A, B], 0.02)
        for step in range(800):
            part.mask = (torch.arange(4) < (step % 4 + 1 if dropped else 4)).float()
            optimiser.zero_grad()
            (part(A, B) - W).square().sum().backward()
            optimiser.step()
        return torch.tensor([(A[:, :b] @ B[:b] - W).square().sum().item() for b in range(1, 5)])

    torch.testing.assert_close(errors(True), best, atol=0.3, rtol=0)
    assert (errors(False) - best)[:3].max() > 3


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(Maestro)
    assert settings.validate_python({"rho": 0.3, "share": 1}) == Maestro(0.3, 1.0)
    for wrong in ({"rho": 0}, {"rho": 1.5}, {"share": 2}, {"lam": -1}, {"eps": 1}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
