"""Matrix product operators: worked examples, their errors, both ways to run them,
and what healing is worth.
"""

import pytest
import tensorly
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.nn.functional import cross_entropy

from harness.point import counter
from methods.compactifai import (
    CompactifAI,
    ContractedMpo,
    Mpo,
    bond,
    chain,
    decomposed,
    near_equal,
    parameters,
    rebuilt,
)
from methods.parts.low_rank.factors import factors, rank
from methods.parts.network.layers import prunable, weighted


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights(module):
    return sum(p.numel() for name, p in module.named_parameters() if not name.endswith("bias"))


def rearranged(W, o, i):
    """The matrix (o_1 i_1) x (o_2 i_2) whose rank is that of the Kronecker sum."""
    return W.view(*o, *i).permute(0, 2, 1, 3).reshape(o[0] * i[0], o[1] * i[1])


def test_a_kronecker_product_is_exact_at_bond_one_and_its_factors_are_the_cores():
    A, B = draw(2, 3), draw(4, 5, seed=1)
    first, last = decomposed(torch.kron(A, B), [2, 4], [3, 5], 1)
    torch.testing.assert_close(rebuilt([first, last]), torch.kron(A, B))
    assert first.shape == (1, 2, 3, 1) and last.shape == (1, 4, 5, 1)
    torch.testing.assert_close(first[0, :, :, 0].abs(), (A / A.norm()).abs())
    torch.testing.assert_close(last[0, :, :, 0].abs(), (B * A.norm()).abs())


def test_parameters_and_factors_are_those_worked_out_by_hand():
    assert parameters([16 * 16, 24 * 24], 8) == 8 * (256 + 576) == 6656
    assert [near_equal(n, 2) for n in (384, 1536, 1152)] == [[16, 24], [32, 48], [32, 36]]
    assert near_equal(48, 3) == [3, 4, 4] and near_equal(17, 2) == [1, 17]
    assert near_equal(48, 2, window=9) == [16, 3]  # 16 x 27


def test_the_bond_is_the_largest_that_the_limit_allows_and_at_least_one():
    assert bond([36, 64], 0.5 * 2304) == 11  # 1152 / 100
    assert bond([36, 64], 1100) == 11 and bond([36, 64], 1099) == 10
    assert bond([36, 64], 3) == 1
    assert bond([9, 16, 16], 1000) == 7  # 63 + 784 + 112; a bond of 8 needs 1224


@pytest.mark.parametrize(("o", "i"), [([4, 5], [3, 6]), ([2, 2, 5], [3, 2, 3])])
def test_the_full_bond_is_exact(o, i):
    W = draw(20, 18)
    torch.testing.assert_close(rebuilt(decomposed(W, o, i, 100)), W, atol=1e-5, rtol=0)


@pytest.mark.parametrize("chi", [1, 4, 11])
def test_the_squared_error_is_the_sum_of_the_dropped_squares_of_the_rearranged_matrix(chi):
    W, o, i = draw(20, 18), [4, 5], [3, 6]
    error = (W - rebuilt(decomposed(W, o, i, chi))).square().sum()
    torch.testing.assert_close(
        error, torch.linalg.svdvals(rearranged(W, o, i))[chi:].square().sum()
    )


@pytest.mark.parametrize(("o", "i"), [([4, 5], [3, 6]), ([2, 2, 5], [3, 2, 3])])
def test_the_cores_give_the_matrix_of_tensorly_s(o, i):
    W, chi = draw(20, 18).double(), 5
    ours = decomposed(W, o, i, chi)
    theirs = tensorly.decomposition.tensor_train_matrix(
        W.view(*o, *i).numpy(), [1, *[chi] * (len(o) - 1), 1]
    )
    assert [tuple(core.shape) for core in ours] == [core.shape for core in theirs.factors]
    torch.testing.assert_close(rebuilt(ours), torch.from_numpy(theirs.to_tensor()).reshape(20, 18))


def linear_layer():
    return nn.Linear(18, 20), draw(3, 7, 18)


def strided():
    return nn.Conv2d(18, 20, (3, 5), (2, 1), (1, 2), (1, 2)), draw(3, 18, 12, 13)


def pointwise():
    return nn.Conv2d(18, 20, 1, bias=False), draw(3, 18, 4, 4)


@pytest.mark.parametrize("make", [linear_layer, strided, pointwise])
@pytest.mark.parametrize("way", [Mpo, ContractedMpo])
@pytest.mark.parametrize("p", [2, 3])
def test_a_layer_that_is_a_chain_computes_the_same_both_ways(make, way, p):
    layer, x = make()
    cores = chain(layer, 0.4, p)
    layer.weight.data = rebuilt(cores).view_as(layer.weight)
    torch.testing.assert_close(way(layer, cores)(x), layer(x), atol=1e-5, rtol=1e-4)


def test_an_ordinary_layer_has_at_most_its_share_of_the_weights_and_nearly_that():
    layer = nn.Conv2d(16, 24, 3)
    for rho in (0.1, 0.5, 0.9):  # 24 = 4 * 6, 144 = 8 * 18: one bond more costs 32 + 108
        assert rho * 3456 - 140 < sum(core.numel() for core in chain(layer, rho, 2)) <= rho * 3456
    assert chain(nn.Linear(2, 2), 0.9, 2) == []  # 1 x 1 and 2 x 2 are five


def test_multiply_accumulates_are_those_of_the_closed_forms_and_a_chain_of_bond_one_is_contracted():
    layer, x, (o1, o2), (i1, i2) = nn.Linear(48, 48), draw(1, 17, 48), (6, 8), (6, 8)
    cores = decomposed(layer.weight.detach(), [o1, o2], [i1, i2], 5)
    assert counter.count(Mpo(layer, cores), x).macs == (5 + 17) * 48 * 48
    assert counter.count(ContractedMpo(layer, cores), x).macs == 17 * 5 * o2 * i1 * (i2 + o1)


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_all_but_stem_classifier_and_depthwise_layers_shrink_without_labels(
    make_model, make_data, name
):
    seen, dense = make_data(name), make_model(name)
    model = CompactifAI(0.5, share=0.0).compress(make_model(name), seen)
    assert seen.images_seen == (64 if name in ("resnet", "mobilenet") else 0)  # batch norms
    for key, layer in weighted(dense).items():
        assert weights(model.get_submodule(key)) <= layer.weight.numel() * (
            0.5 if key in prunable(dense) else 1
        )
    assert model(draw(2, 1, 16, 16)).isfinite().all()


@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_every_layer_runs_the_way_that_the_counter_finds_cheaper(make_model, make_data, rho):
    seen = make_data("resnet")
    model = CompactifAI(rho, share=0.0).compress(make_model("resnet"), seen)
    least, chains = (
        seen.macs(model),
        [module for module in model.modules() if isinstance(module, Mpo)],
    )
    for module in chains:
        found = type(module)
        module.__class__ = Mpo if found is ContractedMpo else ContractedMpo
        assert seen.macs(model) >= least
        module.__class__ = found
    assert {type(module) for module in chains} == {
        0.05: {ContractedMpo},
        0.5: {Mpo, ContractedMpo},
    }[rho]


def test_a_sum_of_kronecker_products_is_caught_by_few_weights_where_plain_svd_needs_many_and_the_other_way_round():
    A, B, C, D = (draw(6, 6, seed=seed) for seed in range(4))
    noise = 0.1 * draw(36, 36, seed=4)

    def errors(W):
        # 2 * 72 = 144 of 1296 weights, as many as bond 2 has
        left, right = factors(W, rank(36, 36, 0.12))
        return (W - left @ right).norm().item(), (
            W - rebuilt(decomposed(W, [6, 6], [6, 6], 2))
        ).norm().item()

    svd, mpo = errors(torch.kron(A, B) + torch.kron(C, D) + noise)
    assert mpo < 0.2 * svd
    svd, mpo = errors(draw(36, 2) @ draw(2, 36, seed=1) + noise)
    assert svd < 0.7 * mpo


def test_healing_lowers_the_loss_on_the_training_images(make_model, make_data, track_data):
    images, labels = track_data.train.images[:256], track_data.train.labels[:256]

    def loss(share):
        model = CompactifAI(0.3, share=share).compress(make_model("resnet"), make_data("resnet"))
        with torch.no_grad():
            return cross_entropy(model(images), labels).item()

    assert loss(1.0) < loss(0.0) - 0.1


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(CompactifAI)
    assert settings.validate_python({"rho": 0.3, "cores": 3}) == CompactifAI(0.3, 3)
    for wrong in ({"rho": 0}, {"cores": 4}, {"share": 1.5}, {"bits": 4}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
