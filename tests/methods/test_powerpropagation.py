import copy
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.nn.utils import parametrize

from methods import powerpropagation
from methods.parts.network.layers import prunable
from methods.parts.pruning.masks import smallest
from methods.parts.training.train import train
from methods.powerpropagation import Power, Powerpropagation, train_powers


@pytest.mark.parametrize(("theta", "w"), [(0.5, 0.25), (-0.5, -0.25)])
def test_the_parameter_gives_its_weight_and_gradient(theta, w):
    parameter = torch.tensor(theta, requires_grad=True)
    weight = Power(2.0)(parameter)
    weight.backward()
    assert weight.item() == pytest.approx(w)
    assert parameter.grad.item() == pytest.approx(1.0)


@pytest.mark.parametrize("alpha", [1.0, 1.125, 1.375, 2.0, 5.0])
def test_a_weight_becomes_a_parameter_and_comes_back(alpha):
    w = torch.randn(1000)
    torch.testing.assert_close(Power(alpha)(Power(alpha).right_inverse(w)), w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [1.125, 2.0])
def test_zero_stays_zero_with_a_gradient_of_zero_not_nan(alpha):
    theta = torch.zeros(3, requires_grad=True)
    Power(alpha)(theta).sum().backward()
    assert theta.grad.tolist() == [0.0, 0.0, 0.0]


def test_the_smallest_weights_of_all_layers_are_marked_and_theta_ranks_them_the_same():
    weights = {"a": torch.tensor([[0.1, -3.0]]), "b": torch.tensor([[2.0, -0.2, 1.0, 0.2]])}
    marks = smallest(weights, 0.5)
    assert {name: mark.tolist() for name, mark in marks.items()} == {
        "a": [[True, False]],
        "b": [[False, True, False, True]],
    }
    thetas = {name: Power(1.375).right_inverse(w) for name, w in weights.items()}
    assert all(torch.equal(mark, marks[name]) for name, mark in smallest(thetas, 0.5).items())


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_alpha_one_trains_bit_for_bit_as_without(name, make_model, make_data):
    plain, powers = make_model(name), make_model(name)
    schedule = replace(make_data(name).scratch, optimiser="sgd", epochs=0.3, learning_rate=0.1)
    train(plain, make_data(name), schedule)
    train_powers(powers, make_data(name), schedule, 1.0)
    assert all(
        torch.equal(tensor, plain.state_dict()[key]) for key, tensor in powers.state_dict().items()
    )
    assert powers.state_dict().keys() == plain.state_dict().keys()


def test_a_head_that_starts_at_zero_learns(make_model, make_data):
    model, data = make_model("mixer"), make_data("mixer")
    assert not model.head.weight.any()
    train_powers(
        model, data, replace(data.scratch, optimiser="sgd", epochs=0.3, learning_rate=0.1), 1.375
    )
    assert (model.head.weight != 0).all()


def few_of_many(alpha, seed):
    """Fit 48 samples of 64 inputs, of which 4 matter, by powers `alpha`; return the
    share near zero and the relative error of the 16 largest.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    truth = torch.zeros(64)
    truth[:4] = torch.tensor([1.0, -1.0, 2.0, -2.0])
    x = torch.randn(48, 64, generator=generator)
    layer = nn.Linear(64, 1, bias=False)
    parametrize.register_parametrization(layer, "weight", Power(alpha))
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.01, momentum=0.9)
    for _ in range(500):
        optimiser.zero_grad()
        (layer(x)[:, 0] - x @ truth).square().mean().backward()
        optimiser.step()
    w = layer.weight.detach()[0]
    pruned = w.masked_fill(smallest({"": w}, 0.75)[""], 0.0)
    return float((w.abs() < 0.02).float().mean()), float(
        (pruned - truth).square().sum() / truth.square().sum()
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_powers_are_denser_at_zero_than_plain_weights_and_lose_less_when_the_smallest_go(seed):
    near_zero, error = few_of_many(1.0, seed)
    near_zero_of_powers, error_of_powers = few_of_many(2.0, seed)
    assert near_zero_of_powers > 2 * near_zero
    assert error_of_powers < 0.5 * error


@pytest.mark.parametrize("name", ["mobilenet", "vit"])
def test_exactly_the_asked_share_of_all_prunable_weights_is_zero_and_the_layers_are_plain(
    name, make_model, make_data
):
    data = make_data(name)
    model = Powerpropagation(0.9).compress(make_model(name), data)
    weights = [layer.weight for layer in prunable(model).values()]
    assert sum(int((w == 0).sum()) for w in weights) == round(0.9 * sum(w.numel() for w in weights))
    assert all(
        type(layer) in (nn.Conv2d, nn.Linear) and isinstance(layer.weight, nn.Parameter)
        for layer in prunable(model).values()
    )


def test_training_is_by_sgd_with_the_tracks_epochs(make_model, make_data, monkeypatch):
    seen = []
    monkeypatch.setattr(
        powerpropagation, "train", lambda model, data, schedule: seen.append(schedule)
    )
    data = make_data("vit")
    Powerpropagation(0.5, alpha=2.0, learning_rate=0.3, weight_decay=1e-3).compress(
        copy.deepcopy(make_model("vit")), data
    )
    assert seen == [replace(data.scratch, optimiser="sgd", learning_rate=0.3, weight_decay=5e-4)]


def test_settings_are_checked():
    settings = TypeAdapter(Powerpropagation)
    assert settings.validate_python({"sparsity": 0.5, "alpha": 2}) == Powerpropagation(0.5, 2.0)
    for wrong in ({"sparsity": 1.0}, {"alpha": 0.5}, {"learning_rate": 0}, {"beta": 1}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
