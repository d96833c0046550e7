from collections import Counter
from itertools import combinations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from harness.point import store
from methods import store_as_codes
from methods.evopress import STAGES, EvoPress
from methods.parts.allocation.evolve import child, children, evolve, fittest, price, under
from methods.parts.network.layers import prunable
from methods.parts.quantization.levels import budget, costs, logits, rounded
from methods.parts.training.losses import soft_loss

KEPT = [[0, 1]] * 8  # eight units, dropped or kept
# many units in the middle of many levels: two moves hardly ever meet
LADDER = [[0, 1, 2, 3, 4]] * 200


@pytest.fixture
def make_small(make_model):
    """Build a ViT of two blocks, one of which counts four times as much as the
    other.
    """

    def make():
        model = make_model("vit")
        model.blocks = model.blocks[:2]
        with torch.no_grad():
            for layer in prunable(model.blocks[1]).values():
                layer.weight.mul_(4)
        return model

    return make


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def additive(losses):
    """The fitness of a state as the sum of what its units lose, whatever the images."""
    return lambda states, images: [
        sum(losses[u][v] for u, v in enumerate(state)) for state in states
    ]


def searched(cost, limit, losses, generations, seed=0):
    generator = seeded(seed)
    start = under(cost, len(cost[0]) - 1, limit, generator)
    return evolve(
        start,
        generations,
        STAGES,
        lambda parent: children(parent, 16, cost, limit, generator),
        additive(losses),
    )


def widths(model):
    return [layer.weight_codes.bits for layer in prunable(model).values()]


@pytest.mark.parametrize("seed", range(5))
def test_three_of_eight_units_are_dropped_as_trying_all_would(seed):
    loss = torch.rand(8, generator=seeded(seed)).tolist()
    found = searched(KEPT, 5, [[lost, 0.0] for lost in loss], 60, seed)
    best = min(combinations(range(8), 3), key=lambda dropped: sum(loss[u] for u in dropped))
    assert tuple(u for u in range(8) if found[u] == 0) == best


def test_units_of_different_sizes_reach_the_best_of_all_within_the_budget():
    generator = seeded(1)
    cost = [[0, size, 2 * size] for size in (3, 5, 8, 13, 2, 7)]
    losses = [sorted(torch.rand(3, generator=generator).tolist(), reverse=True) for _ in cost]
    states = [
        state
        for state in torch.cartesian_prod(*[torch.arange(3)] * 6).tolist()
        if price(state, cost) <= 30
    ]
    best = min(additive(losses)(states, 0))
    assert additive(losses)([searched(cost, 30, losses, 100)], 0)[0] == pytest.approx(best)


@pytest.mark.parametrize("seed", range(5))
def test_every_child_holds_the_budget_changes_little_and_gives_back_most_of_what_it_takes(seed):
    generator = seeded(seed)
    cost = (torch.randint(1, 50, (12, 5), generator=generator).cumsum(1)).tolist()
    limit = 3 * price([2] * 12, cost) // 4
    parent = under(cost, 3, limit, generator)
    assert price(parent, cost) <= limit
    found = children(parent, 40, cost, limit, generator)
    assert len(found) == len(set(found)) == 40 and parent not in found
    for state in found:
        assert sum(abs(v - p) for v, p in zip(state, parent, strict=True)) <= 10
        # at most 3 moves up, none dearer than 49
        assert price(parent, cost) - 0.25 * 3 * 49 <= price(state, cost) <= limit


def test_one_two_and_three_moves_up_come_as_five_three_and_one():
    parent, generator = (2,) * 200, seeded()
    ups = Counter(
        sum(max(0, v - 2) for v in child(parent, LADDER, 400, generator)) for _ in range(4500)
    )
    assert [round(ups[number] / 500) for number in (1, 2, 3)] == [5, 3, 1]


def test_with_equal_costs_each_move_up_is_paid_by_one_down():
    generator = seeded()
    for _ in range(200):
        assert sum(child((2,) * 200, LADDER, 400, generator)) == 400


@pytest.mark.parametrize("limit", [0, 8])
def test_a_search_without_a_choice_ends_where_it_began(limit):
    parent = (int(limit > 0),) * 8
    assert children(parent, 5, KEPT, limit, seeded()) == []
    assert searched(KEPT, limit, [[1.0, 0.0]] * 8, 3) == parent


def test_the_parent_is_never_followed_by_a_worse_state_on_the_same_images():
    losses = torch.rand((10, 4), generator=seeded(3)).tolist()
    values, generator, state, cost = [], seeded(4), (1,) * 10, [[0, 1, 2, 3]] * 10
    for _ in range(40):
        state = evolve(
            state,
            1,
            STAGES,
            lambda parent: children(parent, 6, cost, 10, generator),
            additive(losses),
        )
        values += additive(losses)([state], 0)
    assert values == sorted(values, reverse=True) and values[-1] < values[0]


def test_a_parent_better_than_all_its_children_stays():
    assert evolve(
        (1, 0), 3, STAGES, lambda parent: [(0, 1)], additive([[1.0, 0.0], [0.0, 1.0]])
    ) == (1, 0)


def test_children_are_sieved_on_more_and_more_images_and_the_parent_joins_at_last():
    seen = []

    def fitness(states, images):
        seen.append((len(states), images, (2,) * 200 in states))
        return [float(sum(state[:100])) for state in states]

    generator = seeded()
    evolve(
        (2,) * 200, 1, STAGES, lambda parent: children(parent, 24, LADDER, 400, generator), fitness
    )
    (two, few), (one, most) = STAGES
    assert seen == [(24, few, False), (two + 1, most, True)] and one == 1 and few < most


def test_the_fittest_are_those_of_least_fitness_in_order():
    assert fittest(
        [(3,), (1,), (2,), (1,)], 3, 0, lambda states, images: [state[0] for state in states]
    ) == [(1,), (1,), (2,)]


def loss_of(model, options, levels, data, dense):
    for (name, found), v in zip(options.items(), levels, strict=True):
        store_as_codes(prunable(model)[name], found[v])
    return float(soft_loss(logits(model, data.calibration), dense, 1.0))


def test_it_keeps_closer_to_dense_than_all_layers_alike_within_the_same_bits(make_small, make_data):
    data, model = make_data("vit"), make_small()
    dense, cost = logits(model, data.calibration), costs(model)
    average = price([1] * len(cost), cost) / budget(model, 1)
    alike = loss_of(model, rounded(model, data.calibration[:1]), [1] * len(cost), data, dense)
    found = EvoPress(average + 1e-6, generations=10, offspring=8).compress(make_small(), data)
    assert float(soft_loss(logits(found, data.calibration), dense, 1.0)) < 0.8 * alike


def test_the_average_is_met(make_small, make_data):
    model = EvoPress(3.6, generations=2, offspring=4).compress(make_small(), make_data("vit"))
    codes = [store.codes_of(model)[f"{layer}.weight"] for layer in prunable(model)]
    bits = sum(
        code.bits * code.codes.numel() + 16 * code.scale.numel() + 8 * code.zero.numel()
        for code in codes
    )
    assert 3.2 < bits / sum(code.codes.numel() for code in codes) <= 3.6


def test_the_seed_and_nothing_else_decides_the_search(make_small, make_data):
    runs = [
        widths(
            EvoPress(3.5, generations=2, offspring=4).compress(make_small(), make_data("vit", seed))
        )
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_an_average_above_eight_bits_takes_eight_and_32_keeps_the_model(make_small, make_data):
    assert set(widths(EvoPress(12).compress(make_small(), make_data("vit")))) == {8}
    data = make_data("vit")
    assert not store.codes_of(EvoPress(32).compress(make_small(), data)) and data.images_seen == 0


def test_settings_are_checked():
    settings = TypeAdapter(EvoPress)
    assert settings.validate_python({"average_bits": 3, "offspring": 8}) == EvoPress(3, offspring=8)
    for wrong in ({"average_bits": 1}, {"offspring": 0}, {"levels": "drop"}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
