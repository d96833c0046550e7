import copy
from functools import partial

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.nn.functional import cross_entropy

from methods.diffrate import (
    Budgeted,
    DiffRate,
    SoftBlocks,
    cost,
    drop_and_merge,
    expected,
    growth,
    keep_mask,
    masked_softmax,
    realise,
    rounded_up,
    soft_merge,
    start,
)
from methods.parts.tokens import reduce_tokens

KP = [197, 196, 190, 168, 150, 139, 129, 117, 99, 78, 58, 3]  # of DeiT-S at 2.9 G, as released
KM = [197, 194, 176, 156, 141, 133, 121, 107, 88, 64, 56, 3]


def sure(counts, patches=16):
    """Return logits that are certain of each of `counts`, class token included."""
    w = torch.zeros(len(counts), 2, patches)
    for number, pair in enumerate(counts):
        for which, count in enumerate(pair):
            w[number, which, count - 2] = 1000.0
    return w


def soft(model, w):
    """Return `model` with trainable rates at `w`, its own weights frozen."""
    model.requires_grad_(False)
    model.blocks = SoftBlocks(list(model.blocks), w.clone())
    return model


def test_the_cost_of_the_released_schedule_is_as_published():
    rest = 197 * 384 * 16**2 * 3 + 384 * 1000
    K = torch.tensor([KP, KM], dtype=torch.float64).T[1:]
    assert cost(K, 197, 384, 4 * 384).item() + rest == pytest.approx(2.905256e9, abs=1e3)
    assert cost(torch.full_like(K, 197), 197, 384, 4 * 384).item() + rest == pytest.approx(
        4.599177e9, abs=1e3
    )


def test_expected_counts_and_their_gradient_are_those_of_the_formula():
    assert expected(sure([(5, 9), (17, 2)])).tolist() == [[5, 9], [17, 2]]
    w = torch.randn(16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    K = rounded_up(expected(w))
    K.backward()
    p, n = w.detach().softmax(0), torch.arange(1.0, 17)
    assert K.item() == torch.ceil((n * p).sum() + 1).item()
    torch.testing.assert_close(w.grad, p * (n - (n * p).sum()))


def test_the_mask_of_ranks_is_hard_and_its_gradient_is_that_of_the_probability_to_be_kept():
    w = torch.tensor([0.5, 0.0, -1.0, 2.0], requires_grad=True)  # 1 to 4 patches of 5 tokens
    mask = keep_mask(w, torch.tensor(3.0), torch.tensor(4.0))
    assert mask.tolist() == [1, 1, 1, 0, 1]  # the last is gone already
    p = w.softmax(0)
    (found,) = torch.autograd.grad(mask[3], w, retain_graph=True)
    (wanted,) = torch.autograd.grad(p[2] + p[3], w)
    torch.testing.assert_close(found, wanted)
    (idle,) = torch.autograd.grad(keep_mask(w, torch.tensor(5.0), torch.tensor(4.0)).sum(), w)
    assert (idle == 0).all()


def test_masked_tokens_get_no_attention_but_their_own():
    P = masked_softmax(torch.zeros(1, 1, 3, 3), torch.tensor([[1.0, 1.0, 0.0]]))
    torch.testing.assert_close(
        P[0, 0],
        torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]]),
        atol=1e-5,
        rtol=0,
    )


def test_the_least_attended_goes_and_the_next_merges_into_its_nearest_by_hand():
    # the class token attends to patches 3, 1, 4, 2 in this order; 2 goes; 4 merges into
    # 1, not into 3 and not into the class token
    q, k = torch.ones(1, 1, 5, 1), torch.tensor([0.0, 3.0, 1.0, 4.0, 2.0]).view(1, 1, 5, 1)
    x = torch.tensor([[1.0, 1.0], [2.0, 0.0], [7.0, 7.0], [0.0, 3.0], [4.0, 3.0]])[None]
    y, size = drop_and_merge(x, None, q, k, Kp=4, Km=3)
    assert y.tolist() == [[[1, 1], [0, 3], [3, 1.5]]]
    torch.testing.assert_close(size, torch.tensor([[1, 1, 1.8]]))
    y, size = drop_and_merge(x, None, q, k, Kp=3, Km=3)
    assert y.tolist() == [[[1, 1], [0, 3], [2, 0]]] and size is None
    sizes = torch.tensor([[1.0, 1, 1, 1, 100]])  # a large token is attended to more: 4 now leads
    assert drop_and_merge(x, sizes, q, k, Kp=2, Km=2)[0].tolist() == [[[1, 1], [4, 3]]]


def test_opposite_tokens_leave_a_size_with_a_logarithm():
    q, k = torch.ones(1, 1, 4, 1), torch.tensor([0.0, 3.0, 2.0, 1.0]).view(1, 1, 4, 1)
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [-2.0, 0.0]])[None]
    y, size = drop_and_merge(x, None, q, k, Kp=4, Km=2)
    assert size.tolist() == [[1, 1]]
    torch.testing.assert_close(y[0, 1], torch.tensor([-2 / 3, 0]))


def test_merging_softly_gives_the_tokens_that_merging_gives():
    x = torch.randn(3, 9, 48)
    # in order of rank
    q, k = torch.ones(3, 1, 9, 1), torch.linspace(9, 1, 9).view(1, 1, 9, 1).expand(3, 1, 9, 1)
    hard, _ = drop_and_merge(x, None, q, k, Kp=7, Km=4)
    y, size = soft_merge(x, torch.ones(3, 9), torch.tensor(4.0), torch.tensor(7.0))
    torch.testing.assert_close(y[:, :4], hard)
    assert torch.equal(y[:, 4:], x[:, 4:])
    assert size[:, :4].sum(1).tolist() == [7, 7, 7]


@pytest.mark.parametrize("counts", [[17] * 10, [12, 12, 12, 12, 9, 9, 3, 3, 2, 2]])
def test_masked_tokens_and_missing_ones_give_the_same_logits(make_model, make_data, counts):
    images = make_data("vit").calibration
    model = make_model("vit")
    hard = realise(copy.deepcopy(model), list(copy.deepcopy(model).blocks), counts)
    with torch.no_grad():
        torch.testing.assert_close(
            soft(model, sure(list(zip(counts[::2], counts[1::2], strict=True))))(images),
            hard(images),
            rtol=1e-3,
            atol=1e-4,
        )


def test_counts_grow_in_the_order_in_which_the_expected_ones_round_up_and_never_past_those_before():
    # 4.0 counts as 2.75
    assert growth([3.5, 2.75, 4.0, 2.0], 5) == [0, 1, 2, 0, 3, 1, 2, 0, 3, 1, 2, 3]
    found = growth([4.5, 3.5], 6)
    assert [2 + found[:3].count(which) for which in (0, 1)] == [4, 3]
    assert [2 + found[:5].count(which) for which in (0, 1)] == [5, 4]  # the ceilings


@pytest.mark.parametrize("macs", [0.9, 0.4])
def test_the_budget_is_met_and_the_weights_stay(make_model, make_data, macs):
    dense, data = make_model("vit"), make_data("vit")
    model = DiffRate(macs=macs, share=0.3).compress(copy.deepcopy(dense), data)
    assert macs - 0.015 < data.macs(model) / data.macs(dense) <= macs
    for before, after in zip(dense.parameters(), model.parameters(), strict=True):
        assert torch.equal(before, after) and after.requires_grad
    with pytest.raises(ValueError, match="out of reach"):
        DiffRate(macs=0.2, share=0.1).compress(dense, make_data("vit"))


def test_what_an_image_gives_does_not_depend_on_the_others(make_model, make_data):
    images, model = make_data("vit").calibration, make_model("vit")
    model = realise(model, list(model.blocks), [15, 12, 12, 12, 9, 7, 6, 5, 4, 2])
    with torch.no_grad():
        torch.testing.assert_close(
            torch.cat([model(image[None]) for image in images]), model(images), rtol=1e-5, atol=1e-5
        )


def test_training_starts_at_the_budget_with_the_same_counts_everywhere():
    full = cost(torch.full((5, 2), 17.0), 17, 48, 192).item()
    for share in (0.35, 0.5, 0.7, 0.95):
        w = start(share * full, 6, (17, 48, 192))
        K = expected(w)
        assert w.shape == (5, 2, 16) and K.max() - K.min() < 1e-5
        assert share - 0.01 < cost(K, 17, 48, 192).item() / full <= share


@pytest.mark.parametrize("macs", [0.4, 0.9])
def test_a_step_against_the_loss_moves_the_expected_cost_towards_the_budget(
    make_model, make_data, macs
):
    data, model = make_data("vit"), make_model("vit")
    dense, split = data.macs(model), data.train
    w = soft(model, torch.zeros(5, 2, 16)).blocks.w
    before = cost(expected(w), 17, 48, 192).item()
    cross_entropy(
        Budgeted(model, (17, 48, 192), macs * dense, 100 / dense**2)(split.images[:64]),
        split.labels[:64],
    ).backward()
    w.data -= 0.5 * w.grad.sign()
    after = cost(expected(w), 17, 48, 192).item()
    assert (after > 1.05 * before) if macs == 0.9 else (after < 0.95 * before)


def test_dropping_what_the_class_token_ignores_changes_it_less_than_dropping_what_it_attends_to(
    make_model,
):
    model, x = (
        make_model("vit"),
        torch.randn(64, 17, 48, generator=torch.Generator().manual_seed(0)),
    )
    # attention that is not flat, and heads that say something
    model.blocks[0].attn.qkv.weight.data *= 20
    twice = [model.blocks[0], model.blocks[0]]

    def reverse(x, size, q, k):
        return drop_and_merge(x, size, -q, k, 8, 8)

    with torch.no_grad():
        dense = model.blocks[0](model.blocks[0](x))[:, 0]
        errors = [
            (reduce_tokens(model, twice, [reduction, None]).blocks(x)[:, 0] - dense).norm().item()
            for reduction in (partial(drop_and_merge, Kp=8, Km=8), reverse)
        ]
    assert errors[0] < 0.7 * errors[1]


def test_a_full_budget_is_dense_and_draws_no_images(make_model, make_data):
    model, data = make_model("vit"), make_data("vit")
    assert DiffRate(macs=1.0).compress(model, data) is model
    assert data.images_seen == 0


def test_settings_are_checked():
    settings = TypeAdapter(DiffRate)
    assert settings.validate_python({"macs": 0.5, "share": 1.0}) == DiffRate(macs=0.5, share=1.0)
    for wrong in ({"macs": 0}, {"share": 2}, {"lam": -1}, {"r": 3}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
