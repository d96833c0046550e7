import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from sklearn.cluster import KMeans
from torch import nn

from methods.lr2vq import (
    LR2VQ,
    cluster,
    error,
    kmeans,
    low_rank,
    means,
    most,
    nearest,
    size,
    stored_bits,
    tables,
)
from methods.parts.network.layers import prunable, weighted
from methods.parts.quantization.codebook import store_table


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def points(seed, n=300, d=3, k=6):
    """Draw rows around k far centres."""
    centres = 10 * torch.randn(k, d, generator=draw(seed))
    return (
        centres.repeat(n // k, 1) + 0.1 * torch.randn(n, d, generator=draw(seed + 100))
    ), centres


def test_pieces_of_rank_one_with_two_coefficients_are_exact_with_one_dimension_and_two_clusters():
    W = torch.tensor([1.0, -2.0, -2.0, 1.0, 1.0])[:, None] * torch.tensor([3.0, 0.0, 4.0, 1.0])
    # whether the two rows drawn first are equal or not
    assert max(error(W, 2, 1, draw(seed)) for seed in range(8)) < 1e-8


def test_as_many_clusters_as_rows_are_the_rows():
    W = torch.randn(20, 4, generator=draw())
    assert error(W, 20, 4, draw()) < 1e-8
    Z, P = low_rank(W, 2)
    # of the low rank alone
    assert error(W, 20, 2, draw()) == pytest.approx((W - Z @ P).square().sum().item(), rel=1e-4)


def test_with_all_dimensions_it_is_product_quantisation():
    W = torch.randn(200, 4, generator=draw())
    Z, P = low_rank(W, 4)
    torch.testing.assert_close(P @ P.T, torch.eye(4))
    turned, plain = kmeans(Z, 8, 50, draw(3)), kmeans(W, 8, 50, draw(3))
    torch.testing.assert_close(turned @ P, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_low_rank_representation_is_the_best_of_its_dimension(d):
    W = torch.randn(50, 5, generator=draw())
    Z, P = low_rank(W, d)
    assert Z.shape == (50, d)
    assert (W - Z @ P).square().sum().item() == pytest.approx(
        torch.linalg.svdvals(W)[d:].square().sum().item(), rel=1e-4
    )


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_ends_as_scikit_learns_from_the_same_start(seed):
    z = torch.rand(400, 3, generator=draw(seed))
    start = z[torch.randperm(len(z), generator=draw(seed))[:8]]
    theirs = KMeans(8, init=start.numpy(), n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(
        z.numpy()
    )
    C = kmeans(z, 8, 300, draw(seed))
    torch.testing.assert_close(C, torch.from_numpy(theirs.cluster_centers_), rtol=1e-4, atol=1e-4)
    assert nearest(z, C).tolist() == theirs.labels_.tolist()


def test_clusters_without_rows_start_anew_at_the_farthest_rows():
    z = torch.tensor([[0.0, 0.0], [0.0, 2.0], [9.0, 9.0]])
    C = torch.tensor([[0.0, 0.5], [50.0, 50.0], [9.0, 8.5]])
    assert means(z, torch.tensor([0, 0, 2]), C).tolist() == [[0, 1], [0, 2], [9, 9]]


def test_bits_are_indices_centroids_and_projection():
    assert stored_bits(1000, 9, 256, 3) == 8000 + 16 * (256 * 3 + 3 * 9)
    assert stored_bits(1000, 9, 256, 9) == 8000 + 16 * 256 * 9


@pytest.mark.parametrize(
    ("N", "m", "b"), [(64, 9, 8), (2304, 9, 8), (900, 4, 6), (10**5, 4, 8), (5, 4, 3)]
)
def test_fewer_dimensions_get_as_many_clusters_as_are_stored_no_longer(N, m, b):
    (k, d), *others = tables(N, m, b)
    assert d == m and k == max(2, min(2**b, 2 ** ((N // 4).bit_length() - 1 if N >= 4 else 0)))
    for more, d in others:
        budget = stored_bits(N, m, k, m)
        assert d < m and stored_bits(N, m, more, d) <= budget and most(N, m, d, budget) == more
        assert 2 * more > N / 4 or stored_bits(N, m, 2 * more, d) > budget


def test_pieces_are_kernels_and_four_inputs():
    assert [
        size(layer)
        for layer in (
            nn.Conv2d(4, 8, 3),
            nn.Conv2d(12, 8, 1),
            nn.Linear(48, 3),
            nn.Linear(9, 3),
            nn.Linear(7, 3),
        )
    ] == [9, 4, 4, 3, 1]


@pytest.mark.parametrize("seed", range(3))
def test_pieces_near_a_plane_lose_less_at_equal_bits_in_fewer_dimensions(seed):
    W = torch.randn(500, 2, generator=draw(seed)) @ torch.randn(
        2, 9, generator=draw(seed + 9)
    ) + 0.05 * torch.randn(500, 9, generator=draw(seed + 99))
    (k, m), *others = tables(500, 9, 5)
    assert {d: k for k, d in others}[2] >= 2 * k
    assert min(error(W, k, d, draw()) for k, d in others) < 0.6 * error(W, k, m, draw())


def test_what_is_factorised_is_kept_until_it_is_clustered_and_then_has_k_pieces():
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 16, 3)
    before = layer.weight.detach().clone()
    k = LR2VQ(index_bits=4, rank=1.0).factorise(layer, draw())
    assert k == 16
    torch.testing.assert_close(layer.weight, before, rtol=1e-4, atol=1e-5)
    cluster(layer, k, draw())
    assert len(layer.weight.view(-1, 9).unique(dim=0)) == 16
    kept = layer.weight.detach().clone()
    store_table(layer)
    torch.testing.assert_close(layer.weight.detach(), kept, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("rank", [None, 0.5])
def test_inner_layers_get_codebooks_and_the_others_eight_bits(make_model, make_data, rank):
    model = LR2VQ(index_bits=3, rank=rank, share=0.5).compress(
        make_model("mobilenet"), make_data("mobilenet")
    )
    inner = prunable(model)
    for name, layer in weighted(model).items():
        codes = layer.weight_codes
        assert torch.equal(codes.decode(layer.weight.shape), layer.weight)
        assert hasattr(codes, "centroids") == (name in inner)
        if name in inner and rank:
            assert codes.projection.shape == (2, 4)


def test_settings_outside_the_range_are_refused():
    for wrong in ({"index_bits": 0}, {"index_bits": 20}, {"rank": 0.0}, {"share": -0.1}):
        with pytest.raises(ValidationError):
            TypeAdapter(LR2VQ).validate_python(wrong)
