import pytest
import torch

from methods.parts.pruning.channels import groups
from methods.parts.pruning.ranking import global_order, macs_limits, prune_below


def test_units_of_all_groups_are_ranked_in_one_list_and_the_best_of_each_stays():
    assert global_order([torch.tensor([5.0, 1.0, 3.0]), torch.tensor([2.0, 9.0])]) == [
        (0, 1),
        (1, 0),
        (0, 2),
    ]


def test_ties_go_to_the_earlier_group_and_unit():
    assert global_order([torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 1.0])]) == [
        (0, 0),
        (0, 1),
        (1, 0),
    ]


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_the_steps_close_equal_parts_of_the_gap_and_the_last_limit_is_the_budget_itself(steps):
    limits = macs_limits(12345, 0.3, steps)
    assert len(limits) == steps and limits[-1] == 0.3 * 12345
    gaps = [before - after for before, after in zip([12345, *limits], limits, strict=False)]
    assert gaps == pytest.approx([0.7 * 12345 / steps] * steps)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_pruning_below_a_limit_in_two_steps_meets_it_and_never_exceeds_it(
    make_model, make_data, name
):
    model, data = make_model(name), make_data(name)
    dense = data.macs(model)
    for limit in (0.7 * dense, 0.5 * dense):
        prune_below(
            model,
            global_order([group.weights().abs().sum(1) for group in groups(model)]),
            limit,
            data,
        )
        assert limit - 0.005 * dense < data.macs(model) <= limit


def test_a_limit_that_is_met_already_removes_nothing(make_model, make_data):
    model, data = make_model("mixer"), make_data("mixer")
    dense = data.macs(model)
    assert (
        prune_below(
            model, global_order([torch.ones(group.units) for group in groups(model)]), dense, data
        )
        == []
    )
    assert data.macs(model) == dense
