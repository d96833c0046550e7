import json

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from sklearn.cluster import KMeans
from torch import nn

from harness.point import weights_file
from harness.point.huffman import huffman, unhuffman
from harness.run import registry
from methods.kmeans_huffman import KMeansHuffman, clusters, kmeans, refilled, share_weights
from methods.parts.network.layers import prunable
from methods.parts.quantization.codebook import store_table
from methods.parts.quantization.quantize import round_to_nearest, rule


def sse(w, c):
    return (w[:, None] - c).square().amin(1).sum().item()


def best(w, k):
    """Return the least sum of squares of any k clusters of w, by dynamic programming
    over the sorted values.
    """
    x = np.sort(w.double().numpy())

    def cost(i, j):
        return ((x[i:j] - x[i:j].mean()) ** 2).sum()

    least = [cost(0, j) if j else 0.0 for j in range(len(x) + 1)]
    for _ in range(k - 1):
        least = [
            min((least[i] + cost(i, j) for i in range(j)), default=0.0) for j in range(len(x) + 1)
        ]
    return least[-1]


def test_two_values_are_their_own_centroids():
    w = torch.tensor([1.0, 0, 1, 0])
    assert kmeans(w, 2).tolist() == [0, 1] and sse(w, kmeans(w, 2)) == 0


@pytest.mark.parametrize(("k", "seed"), [(2, 0), (4, 1), (8, 2), (16, 3)])
def test_it_equals_scikit_learn_from_the_same_linear_start(k, seed):
    w = torch.rand(2000, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).pow(
        1.5
    )
    start = torch.linspace(w.min().item(), w.max().item(), k, dtype=w.dtype)[:, None]
    theirs = KMeans(k, init=start.numpy(), n_init=1, max_iter=100, tol=0, algorithm="lloyd").fit(
        w[:, None].numpy()
    )
    torch.testing.assert_close(
        kmeans(w, k), torch.from_numpy(theirs.cluster_centers_).flatten(), rtol=0, atol=2e-3
    )
    assert sse(w, kmeans(w, k)) == pytest.approx(theirs.inertia_, rel=2e-4)


@pytest.mark.parametrize("seed", range(5))
def test_no_clustering_is_better_than_the_exact_one_and_separate_groups_are_found(seed):
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(60, generator=generator, dtype=torch.float64)
    assert best(w, 4) <= sse(w, kmeans(w, 4)) < 2 * best(w, 4)
    groups = torch.tensor([-3.0, 0.0, 1.0, 9.0], dtype=torch.float64).repeat(15) + 0.05 * w
    assert sse(groups, kmeans(groups, 4)) == pytest.approx(best(groups, 4))


def test_one_cluster_is_the_mean_and_as_many_as_values_are_the_values():
    w = torch.tensor([4.0, -1.0, 0.5, 100.0])
    assert kmeans(w, 1).tolist() == [w.mean()] and kmeans(w, 4).tolist() == [-1.0, 0.5, 4.0, 100.0]


def test_an_empty_cluster_starts_anew_at_the_weight_of_largest_error():
    x = torch.tensor([0.0, 0.1, 0.2, 5.0], dtype=torch.float64)
    # members: the first three, none, the last
    c = torch.tensor([1.3, 2.0, 4.9], dtype=torch.float64)
    assert refilled(x, c, torch.tensor([3, 0, 1])).tolist() == [0.0, 1.3, 4.9]


@pytest.mark.parametrize(
    ("n", "b", "k"),
    [(10**6, 8, 256), (576, 8, 256), (500, 8, 128), (64, 8, 16), (3, 8, 2), (10**6, 1, 2)],
)
def test_a_table_is_no_longer_than_the_indices(n, b, k):
    assert clusters(n, b) == k


def test_zeros_keep_a_code_of_their_own_and_the_rest_shares_the_other_values():
    layer = nn.Linear(100, 40)
    pruned = layer.weight.detach().abs() < 0.05
    layer.weight.data[pruned] = 0
    share_weights(layer, 3)
    assert torch.equal(layer.weight == 0, pruned) and len(layer.weight.unique()) == 8
    assert (layer.parametrizations.weight[0].index == 0).view_as(pruned).equal(pruned)


def test_a_layer_without_zeros_uses_all_codes_and_one_of_zeros_alone_stays_zero():
    layer, empty = nn.Linear(100, 40), nn.Linear(20, 20)
    empty.weight.data.zero_()
    share_weights(layer, 3)
    share_weights(empty, 3)
    assert len(layer.weight.unique()) == 8 and not empty.weight.any()


def test_the_frequencies_take_thirteen_bits():
    symbols = torch.tensor([0, 0, 0, 0, 0, 1, 2, 3])
    parts = huffman(symbols)
    assert parts["lengths"].tolist() == [0, 1, 1, 2]  # lengths 1, 2, 3, 3
    lengths = [length for length, of in enumerate(parts["lengths"].tolist()) for _ in range(of)]
    assert (
        sum(
            length * int((symbols == s).sum())
            for length, s in zip(lengths, parts["symbols"].tolist(), strict=True)
        )
        == 13
    )
    assert len(parts["stream"]) == 2 and torch.equal(unhuffman(parts, 8), symbols)


def forms(content):
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"][weights_file.FORMAT])


def written(layer, b):
    """Store `layer` in 2^b values; return its codes, the file, and how much of the
    packed indices its Huffman code takes.
    """
    share_weights(layer, b)
    store_table(layer)
    codes = layer.weight_codes
    coded = sum(part.nbytes for part in huffman(codes.index).values())
    return (
        codes,
        weights_file.encode({"w": layer.weight.detach()}, {"w": codes}),
        coded / (b * layer.weight.numel() / 8),
    )


def test_the_file_of_a_pruned_layer_is_huffman_coded_shorter_than_packed_and_read_back_bit_for_bit():
    torch.manual_seed(0)
    layer = nn.Linear(200, 100)
    layer.weight.data[torch.rand(100, 200) < 0.9] = 0
    codes, content, share = written(layer, 4)
    assert share < 0.5 and forms(content)["w"]["huffman"] and len(content) < 200 * 100 * 4 / 8
    assert torch.equal(weights_file.decode(content)[0]["w"], layer.weight)
    p = torch.bincount(codes.index).double() / codes.index.numel()
    entropy = -(p[p > 0] * p[p > 0].log2()).sum().item()
    assert entropy <= 8 * len(huffman(codes.index)["stream"]) / codes.index.numel() < entropy + 1


def test_the_file_of_balanced_clusters_is_packed_and_read_back_bit_for_bit():
    layer = nn.Linear(200, 100)  # uniform
    _, content, share = written(layer, 4)
    assert share > 0.99 and not forms(content)["w"]["huffman"]
    assert torch.equal(weights_file.decode(content)[0]["w"], layer.weight)


def test_a_chain_from_pruning_keeps_every_zero_through_fine_tuning(make_model, make_data):
    setting = {
        "magnitude.sparsity": 0.7,
        "magnitude.bn_passes": 0,
        "kmeans_huffman.index_bits": 3,
        "kmeans_huffman.share": 1.0,
    }
    pruned = registry.configure("magnitude", {"sparsity": 0.7, "bn_passes": 0}).compress(
        make_model("resnet"), make_data("resnet")
    )
    model = registry.configure("magnitude__kmeans_huffman", setting).compress(
        make_model("resnet"), make_data("resnet")
    )
    for (name, layer), before in zip(
        prunable(model).items(), prunable(pruned).values(), strict=True
    ):
        assert torch.equal(layer.weight == 0, before.weight == 0), name
        assert len(layer.weight.unique()) <= 8


def test_shared_values_lose_less_than_a_grid_of_as_many_points():
    w = torch.distributions.Laplace(0.0, 1.0).icdf(
        torch.rand(64, 64, generator=torch.Generator().manual_seed(0)).clamp(1e-3, 1 - 1e-3)
    )
    for b in (3, 4):
        grid = round_to_nearest(w.view(1, -1), rule(b, w.numel())).decode(w.shape)
        assert sse(w.flatten(), kmeans(w.flatten(), 2**b)) < 0.8 * (grid - w).square().sum()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trained_shared_values_lose_less_than_two_thirds_of_what_those_of_kmeans_lose(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    )
    x = torch.randn(512, 16)
    y = model(x).detach()
    for layer in model[::2]:
        share_weights(layer, 1)
    start, optimiser = (
        (model(x) - y).square().mean().item(),
        torch.optim.Adam(model.parameters(), lr=0.003),
    )
    for _ in range(100):
        optimiser.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimiser.step()
    assert loss < 2 / 3 * start and all(len(layer.weight.unique()) == 2 for layer in model[::2])


def test_without_training_it_depends_on_no_seed_and_settings_outside_the_range_are_refused(
    make_model, make_data
):
    first, second = (
        KMeansHuffman(4, 0.0)
        .compress(make_model("resnet"), make_data("resnet", seed=seed))
        .state_dict()
        for seed in (0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    for wrong in ({"index_bits": 0}, {"index_bits": 9}, {"share": 1.5}, {"bits": 4}):
        with pytest.raises(ValidationError):
            TypeAdapter(KMeansHuffman).validate_python(wrong)
