import copy
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.point import counter, store
from methods.parts.tokens import (
    ReducingBlock,
    ReducingBlocks,
    add_at,
    heads,
    nearest,
    reduce_tokens,
    take,
    token_count,
    unfit,
)


def halve(x, size, q, k, to):
    """Keep the first `to` tokens and count the last of them `to` times."""
    sizes = torch.ones_like(x[:, :to, 0])
    sizes[:, -1] = to
    return x[:, :to], sizes


def reduced(model, counts):
    return reduce_tokens(
        model, list(model.blocks), [partial(halve, to=count) if count else None for count in counts]
    )


def test_tokens_are_taken_and_added_by_index():
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    index = torch.tensor([[2, 0], [1, 1]])
    assert take(x, index).tolist() == [[3, 1], [5, 5]]
    assert add_at(x, index, torch.tensor([[10.0, 20.0], [30.0, 40.0]])).tolist() == [
        [21, 2, 13],
        [4, 75, 6],
    ]
    assert take(x[..., None].expand(2, 3, 4), index).shape == (2, 2, 4)
    assert torch.equal(
        add_at(x[..., None], index, torch.ones(2, 2, 1))[..., 0], add_at(x, index, torch.ones(2, 2))
    )


def test_the_nearest_token_is_that_of_greatest_cosine_and_the_first_of_equals():
    best, index = nearest(
        torch.tensor([[[2.0, 0.0], [1.0, 1.0]]]),
        torch.tensor([[[0.0, 1.0], [1.0, 0.0], [5.0, 0.0]]]),
    )
    torch.testing.assert_close(best, torch.tensor([[1.0, 0.5**0.5]]))
    assert index.tolist() == [[1, 0]]


def test_without_reductions_the_model_computes_the_same_at_the_same_cost(make_model, make_data):
    model, data = make_model("vit"), make_data("vit")
    images = data.calibration
    wrapped = reduced(copy.deepcopy(model), [None] * 6)
    with torch.no_grad():
        torch.testing.assert_close(wrapped(images), model(images), rtol=1e-5, atol=1e-6)
    assert data.macs(wrapped) == data.macs(model)


def test_a_token_of_size_three_counts_as_three_equal_tokens(make_model):
    block = make_model("vit").blocks[0]
    x = torch.randn(2, 5, 48)
    size = torch.tensor([1.0, 1, 3, 1, 2]).expand(2, 5)
    repeated = x.repeat_interleave(torch.tensor([1, 1, 3, 1, 2]), 1)
    with torch.no_grad():
        torch.testing.assert_close(
            ReducingBlock(block, None)(x, size)[0][:, :2], block(repeated)[:, :2]
        )


def test_a_reduction_sees_keys_and_queries_and_hands_on_tokens_and_sizes(make_model):
    block, x, seen = make_model("vit").blocks[0], torch.randn(2, 5, 48), []

    def reduction(x, size, q, k):
        seen.append((q, k))
        return halve(x, size, q, k, to=3)

    y, size = ReducingBlock(block, reduction)(x, None)
    assert y.shape == (2, 3, 48) and size.tolist() == [[1, 1, 3]] * 2
    for found, expected in zip(seen[0], heads(block.attn, block.norm1(x)), strict=False):
        assert torch.equal(found, expected)
    blocks = ReducingBlocks(ReducingBlock(block, reduction), ReducingBlock(block, None))
    torch.testing.assert_close(blocks(x), ReducingBlock(block, None)(y, size)[0])


def test_fewer_tokens_cost_what_the_formula_says_fused_or_not_exported_or_not(
    make_model, make_data
):
    model, data = make_model("vit"), make_data("vit")
    tokens = [17, 9, 9, 4, 4, 4, 4]  # before each block, and after the last
    C, images = 48, data.calibration[:2]
    inside = sum(4 * n * C**2 + 2 * n**2 * C + 8 * after * C**2 for n, after in pairwise(tokens))
    dense = 6 * (12 * 17 * C**2 + 2 * 17**2 * C)
    small = reduced(copy.deepcopy(model), [9, None, 4, None, None, None])
    program = store.export(copy.deepcopy(small), images).module()
    counts = [counter.count(module, images[:1]).macs for module in (small, program)]
    with sdpa_kernel(SDPBackend.MATH):
        counts += [counter.count(module, images[:1]).macs for module in (small, program)]
    assert counts == [data.macs(model) - dense + inside] * 4


def test_only_plain_transformers_with_a_class_token_have_tokens_to_reduce(make_model):
    assert unfit(make_model("vit")) is None and token_count(make_model("vit")) == 17
    for name in ("resnet", "mobilenet", "mixer"):
        assert "not a vision transformer" in unfit(make_model(name))
    model = make_model("vit")
    model.global_pool = "avg"
    assert "class token" in unfit(model)
    assert "not plain" in unfit(reduced(make_model("vit"), [None] * 6))
    model = make_model("vit")
    model.blocks[2] = nn.Identity()
    assert "not plain" in unfit(model)


def test_the_exported_program_takes_any_batch(make_model, make_data):
    images = make_data("vit").calibration
    small = reduced(make_model("vit"), [9, None, 4, None, None, 2])
    program = store.export(copy.deepcopy(small), images[:2]).module()
    with torch.no_grad():
        for batch in (1, 3, 7):
            torch.testing.assert_close(
                program(images[:batch]), small(images[:batch]), rtol=1e-5, atol=1e-5
            )
