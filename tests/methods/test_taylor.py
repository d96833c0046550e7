import copy

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from timm.models.resnet import BasicBlock
from torch import nn
from torch.nn import functional

from methods.parts.pruning.channels import Group, groups, prune_to_macs, remove
from methods.parts.pruning.ranking import global_order
from methods.taylor import Taylor, change, first_order, importance, parts


def alone(layer):
    """A group of the rows of `layer` that nothing else belongs to."""
    index = torch.arange(len(layer.weight))[:, None]
    return Group("layer", layer, index, (), (), index)


def test_the_weights_one_and_two_score_one_and_sixteen():
    layer = nn.Linear(1, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0], [2.0]])
    (0.5 * layer(torch.ones(1, 1)).square().sum()).backward()
    torch.testing.assert_close(first_order(alone(layer)).square(), torch.tensor([1.0, 16.0]))


def test_the_terms_of_a_unit_are_summed_with_their_signs_before_the_square():
    layer = nn.Linear(2, 1)
    layer.weight.data, layer.bias.data = torch.tensor([[3.0, -2.0]]), torch.tensor([4.0])
    layer(torch.tensor([[1.0, 1.0]])).sum().backward()
    torch.testing.assert_close(first_order(alone(layer)), torch.tensor([3.0 - 2.0 + 4.0]))


def test_of_a_linear_loss_the_score_is_the_change_when_the_unit_goes():
    block = BasicBlock(3, 3).eval()
    x = torch.randn(4, 3, 5, 5)

    def loss(block):  # linear in what conv2 reads
        return block.conv2(block.act1(block.bn1(block.conv1(x)))).sum()

    loss(block).backward()
    for unit in range(3):
        pruned = copy.deepcopy(block)
        remove(pruned, [(0, unit)])
        torch.testing.assert_close(
            change(block.conv2.weight, 1)[unit],
            (loss(block) - loss(pruned)).detach(),
            rtol=1e-4,
            atol=1e-4,
        )
    # the paper's gate after the norm; ReLU lets it through
    by_norm = change(block.bn1.weight, 0) + change(block.bn1.bias, 0)
    torch.testing.assert_close(by_norm, change(block.conv2.weight, 1), rtol=1e-4, atol=1e-4)


def test_a_head_counts_its_rows_of_q_k_and_v_and_its_columns_of_proj(make_model):
    model = make_model("vit")
    functional.cross_entropy(model(torch.randn(4, 1, 16, 16)), torch.arange(4)).backward()
    group = next(group for group in groups(model) if group.attention is not None)
    qkv, proj = group.producer, group.readers[0].weight
    rows = (qkv.weight * qkv.weight.grad).sum(1) + qkv.bias * qkv.bias.grad
    expected = rows.view(3, 3, 16).sum((0, 2)) + (proj * proj.grad).sum(0).view(3, 16).sum(1)
    torch.testing.assert_close(first_order(group), expected.detach())


def test_scores_are_squared_per_batch_and_leave_the_model_as_it_was(make_model, make_data):
    model, split = make_model("resnet"), make_data("resnet").train
    images, labels = split.images[:128], split.labels[:128]
    before = copy.deepcopy(model.state_dict())
    both = importance(model, images, labels)
    halves = [importance(model, images[part], labels[part]) for part in (slice(64), slice(64, 128))]
    for score, first, second in zip(both, *halves, strict=True):
        torch.testing.assert_close(score, (first + second) / 2)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_removing_units_of_low_score_raises_the_loss_less_than_removing_those_of_small_weights(
    make_model, make_data
):
    model, data = make_model("resnet"), make_data("resnet")
    split = data.train
    images, labels = split.images[:256], split.labels[:256]
    taylor = importance(model, images, labels)
    magnitude = [group.weights().abs().mean(1) for group in groups(model)]

    @torch.no_grad()
    def harm(scores):
        pruned = copy.deepcopy(model)
        prune_to_macs(pruned, global_order(scores), 0.8, data)
        return (
            functional.cross_entropy(pruned(images), labels)
            - functional.cross_entropy(model(images), labels)
        ).abs()

    assert harm(taylor) < 0.5 * harm(magnitude)


@pytest.mark.parametrize(
    ("steps", "between", "epochs"),
    [(1, 0.2, 6), (3, 0.2, 6), (4, 1.0, 1), (20, 0.5, 6), (100, 0.2, 1)],
)
def test_all_fine_tuning_together_takes_the_gradient_steps_of_the_budget(
    make_data, steps, between, epochs
):
    data = make_data("resnet", epochs=epochs)
    counts = [data.steps(part) for part in parts(data, steps, between)]
    assert len(counts) == steps and sum(counts) == data.steps(data.fine_tune)
    assert sum(counts[:-1]) <= between * data.steps(data.fine_tune)


def test_a_model_is_pruned_in_steps_to_its_budget_and_fine_tuned_within_it(make_model, make_data):
    model, data = make_model("mobilenet"), make_data("mobilenet")
    compressed = Taylor(macs=0.5, steps=2, batches=1).compress(copy.deepcopy(model), data)
    assert 0.495 < data.macs(compressed) / data.macs(model) <= 0.5
    fine_tuning = data.steps(data.fine_tune) * data.fine_tune.batch
    assert data.images_seen == fine_tuning + len(make_data("mobilenet").train.labels)
    assert not compressed.training


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_a_full_budget_is_dense_and_draws_no_images(make_model, make_data, name):
    model, data = make_model(name), make_data(name)
    images = torch.randn(4, 1, 16, 16)
    assert torch.equal(Taylor(macs=1.0).compress(copy.deepcopy(model), data)(images), model(images))
    assert data.images_seen == 0


def test_settings_are_checked():
    settings = TypeAdapter(Taylor)
    assert settings.validate_python({"macs": 0.5, "steps": 5}) == Taylor(macs=0.5, steps=5)
    for wrong in ({"macs": 0}, {"steps": 0}, {"batches": 0}, {"between": 1.5}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
