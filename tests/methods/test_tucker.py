from math import prod

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from methods.parts.network.layers import prunable
from methods.svd import SVD
from methods.tucker import Tucker, ranks, size, smaller, triple, tucker2


def tensor(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthonormal(m, r, seed):
    return torch.linalg.qr(tensor(m, r, seed=seed)).Q


def product(G, U_o, U_i):
    return torch.einsum("abxy,oa,ib->oixy", G, U_o, U_i)


def hosvd(K, R_o, R_i):
    """The truncated HOSVD by hand: the left singular vectors of both unfoldings, and K
    in their coordinates.
    """
    U_o = torch.linalg.svd(K.flatten(1), full_matrices=False)[0][:, :R_o]
    U_i = torch.linalg.svd(K.transpose(0, 1).flatten(1), full_matrices=False)[0][:, :R_i]
    return torch.einsum("oixy,oa,ib->abxy", K, U_o, U_i), U_o, U_i


def weights(module):
    return sum(p.numel() for name, p in module.named_parameters() if not name.endswith("bias"))


def test_ranks_of_16_make_of_the_64_channels_4352_weights():
    assert size(64, 64, 9, 16, 16) == 4352
    assert ranks(64, 64, 9, 4352 / 36864) == (16, 16)
    assert ranks(64, 64, 9, 4351 / 36864) == (15, 15)
    assert weights(triple(nn.Conv2d(64, 64, 3), 16, 16)) == 4352


def test_ranks_keep_the_proportion_of_the_channels_and_are_at_least_one():
    # 19 * 32 + 19 * 28 * 9 + 28 * 48 = 6740 of 6912; (29, 19) would be 6959
    assert ranks(48, 32, 9, 0.5) == (28, 19)
    assert ranks(48, 32, 9, 0.001) == (1, 1)
    assert ranks(2, 2, 2, 0.9) == (1, 1)  # 2 + 2 + 2 < 8
    assert ranks(2, 1, 3, 0.9) == (0, 0)  # 1 + 3 + 2 = 2 * 1 * 3


@pytest.mark.parametrize("shape", [(8, 8, 9), (16, 8, 9), (48, 32, 9), (64, 3, 9), (8, 48, 25)])
@pytest.mark.parametrize("rho", [0.1, 0.3, 0.5, 0.75, 0.95])
def test_a_layer_keeps_at_most_its_share_and_the_next_ranks_would_exceed_it(shape, rho):
    limit, k = rho * prod(shape), shape[2]
    R_o, R_i = ranks(*shape, rho)
    assert size(*shape, R_o, R_i) <= limit or (R_o, R_i) == (1, 1)
    assert R_o <= R_i * k and R_i <= R_o * k
    assert size(*shape, R_o + 1, R_i + 1) > limit or R_o == R_i * k or R_i == R_o * k


def test_full_ranks_are_exact_and_a_kernel_made_of_factors_is_recovered_at_its_ranks():
    K = tensor(10, 8, 3, 3)
    torch.testing.assert_close(product(*tucker2(K, 10, 8)), K, atol=1e-5, rtol=0)
    made = product(tensor(4, 3, 3, 3), orthonormal(10, 4, 1), orthonormal(8, 3, 2))
    torch.testing.assert_close(product(*tucker2(made, 4, 3)), made, atol=1e-5, rtol=0)
    assert (product(*tucker2(made, 3, 3)) - made).norm() > 0.1


@pytest.mark.parametrize("R", [(1, 1), (4, 3), (9, 2), (5, 7)])
def test_factors_are_orthonormal_and_the_error_is_below_that_of_hosvd_which_is_below_the_energies_dropped(
    R,
):
    K = tensor(10, 8, 3, 3)
    G, U_o, U_i = tucker2(K, *R)
    torch.testing.assert_close(U_o.T @ U_o, torch.eye(R[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(U_i.T @ U_i, torch.eye(R[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(G, torch.einsum("oixy,oa,ib->abxy", K, U_o, U_i), atol=1e-5, rtol=0)
    error, plain = (product(G, U_o, U_i) - K).norm(), (product(*hosvd(K, *R)) - K).norm()
    modes = ((K.flatten(1), R[0]), (K.transpose(0, 1).flatten(1), R[1]))
    dropped = sum(torch.linalg.svdvals(matrix)[r:].square().sum() for matrix, r in modes)
    assert error <= plain * (1 + 1e-5) and plain <= dropped.sqrt() * (1 + 1e-5)
    assert R != (4, 3) or error < 0.995 * plain


@pytest.mark.parametrize("stride", [1, (2, 1)])
@pytest.mark.parametrize("padding", [0, (1, 2)])
@pytest.mark.parametrize("dilation", [1, (1, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_of_low_ranks_becomes_three_layers_that_compute_the_same(
    stride, padding, dilation, bias
):
    layer, x = nn.Conv2d(8, 10, (3, 5), stride, padding, dilation, bias=bias), tensor(2, 8, 12, 13)
    layer.weight.data = product(tensor(4, 3, 3, 5), orthonormal(10, 4, 1), orthonormal(8, 3, 2))
    after = triple(layer, 4, 3)
    torch.testing.assert_close(after(x), layer(x), atol=1e-4, rtol=1e-4)
    assert after[0].bias is None and after[1].bias is None


def test_a_kernel_of_low_rank_in_its_channels_costs_tucker_fewer_weights_than_a_pair_needs():
    """The paper's claim in miniature: where both channel modes are redundant, two
    factors beat one.
    """
    K = product(tensor(4, 4, 3, 3), orthonormal(32, 4, 1), orthonormal(32, 4, 2)) + 0.01 * tensor(
        32, 32, 3, 3, seed=3
    )
    error, s = (product(*tucker2(K, 4, 4)) - K).norm(), torch.linalg.svdvals(K.flatten(1))
    # of the smallest pair as good
    r = int((s.square().flip(0).cumsum(0).flip(0).sqrt() > error).sum())
    assert size(32, 32, 9, 4, 4) < 0.4 * r * (32 + 32 * 9)


def test_every_layer_keeps_its_share_and_one_by_one_convolutions_are_pairs(make_model, make_data):
    data, dense = make_data("resnet"), make_model("resnet")
    model, pairs = (
        Tucker(0.5, share=0.0).compress(make_model("resnet"), data),
        SVD(0.5).compress(make_model("resnet"), make_data("resnet")),
    )
    assert data.images_seen == 64
    for key, layer in prunable(dense).items():
        after = model.get_submodule(key)
        assert weights(after) <= 0.5 * layer.weight.numel()
        assert len(after) == (3 if layer.kernel_size == (3, 3) else 2)
        if layer.kernel_size == (1, 1):
            assert torch.equal(after[0].weight, pairs.get_submodule(key)[0].weight)
    assert weights(model) < 0.6 * weights(dense)


def test_a_linear_becomes_a_pair_and_a_layer_that_would_not_shrink_stays():
    assert weights(smaller(nn.Linear(40, 30), 0.5)) == 8 * 70
    thin = nn.Conv2d(1, 2, 3)
    assert smaller(thin, 0.2) is not thin and smaller(nn.Linear(1, 5), 0.5).weight.shape == (5, 1)


def test_tucker_that_keeps_all_leaves_the_model_as_it_is_and_share_sets_the_steps(
    make_model, make_data
):
    data, model = make_data("resnet"), make_model("resnet")
    assert Tucker(1.0).compress(model, data) is model
    assert data.images_seen == 0
    Tucker(0.5, share=0.5).compress(model, data)
    assert data.images_seen == 64 + 64 * (data.steps(data.fine_tune) // 2)


def test_models_without_spatial_kernels_are_skipped_with_the_reason(make_model):
    assert Tucker().skip(make_model("resnet")) is None
    for name in ("mobilenet", "vit", "mixer"):
        assert "plain SVD" in Tucker().skip(make_model(name))


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(Tucker)
    assert settings.validate_python({"rho": 0.3, "share": 0}) == Tucker(0.3, 0.0)
    for wrong in ({"rho": 0}, {"rho": 1.5}, {"share": 2}, {"rank": 3}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
