import copy
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.nn.utils import parametrize

import methods.lsq
from methods.lsq import LSQ, InputStep, WeightStep, add_steps, as_codes, lsq, scaled, store_steps
from methods.parts.network.layers import prunable, weighted
from methods.parts.quantization.activations import Static, observe
from methods.parts.quantization.quantize import round_to_nearest, rule


def gradients(v, s, Qn, top):
    """Return what one is for d, summed over v^: v^, and the gradients of v, s and
    Qn.
    """
    v, s, Qn = (torch.tensor(x).requires_grad_() for x in (v, s, Qn))
    y = lsq(v, s, Qn, top)
    y.sum().backward()
    return y.tolist(), v.grad.tolist(), s.grad.item(), Qn.grad.item()


@pytest.mark.parametrize(
    ("v", "value", "inside", "ds", "dQn"),
    [
        (0.4, 0.0, 1, -0.4, 0.0),
        (0.6, 1.0, 1, 0.4, 0.0),
        (10.0, 3.0, 0, 3.0, -1.0),
        (-10.0, -4.0, 0, -4.0, -1.0),
    ],
)
def test_the_gradients_of_the_step(v, value, inside, ds, dQn):
    y, dv, found, of_offset = gradients([v], 1.0, 4.0, 7)
    assert (y, dv) == ([value], [inside])
    assert found == pytest.approx(ds) and of_offset == pytest.approx(dQn)


def test_an_offset_that_is_learned_gets_lsq_plus_gradients():
    x = torch.tensor([[-9.0, -1.0, 0.3, 40.0]])  # below, inside, inside, above
    step = InputStep(torch.tensor([[-2.0, 5.0, 1.0, 1.0]]), 3)
    with torch.no_grad():
        step.s.fill_(1.0)
        step.beta.fill_(-2.0)
    y = step(x)
    y.sum().backward()
    assert y.tolist() == [[-2.0, -1.0, 0.0, 5.0]]
    assert step.beta.grad.item() == pytest.approx(2 * step.g)  # 1 below and above
    # 0 below, round(v) - v inside, top above
    assert step.s.grad.item() == pytest.approx((0.0 + 0.0 - 0.3 + 7.0) * step.g)


def test_gradients_equal_those_of_torchs_learnable_fake_quantisation():
    generator = torch.Generator().manual_seed(0)
    v, d = (torch.randn(50, 40, generator=generator) for _ in range(2))
    for s, Qn, top in [(0.3, 8.0, 15), (0.2, 0.0, 7), (0.7, 2.0, 3)]:
        u = v / s + Qn
        # half a step beyond the ends torch counts as inside
        d0 = d.masked_fill((u < 0) & (u > -0.51) | (u > top) & (u < top + 0.51), 0)
        ours = [
            v.clone().requires_grad_(),
            torch.tensor(s, requires_grad=True),
            torch.tensor(Qn, requires_grad=True),
        ]
        theirs = [
            v.clone().requires_grad_(),
            torch.tensor([s], requires_grad=True),
            torch.tensor([Qn], requires_grad=True),
        ]
        y, expected = (
            lsq(*ours, top),
            torch._fake_quantize_learnable_per_tensor_affine(*theirs, 0, top, 1.0),
        )
        torch.testing.assert_close(y, expected)
        for found, wanted in zip(
            torch.autograd.grad(y, ours, d0), torch.autograd.grad(expected, theirs, d0), strict=True
        ):
            torch.testing.assert_close(found.flatten(), wanted.flatten(), rtol=1e-3, atol=1e-3)


def test_the_scale_of_a_gradient_leaves_the_value_as_it_is():
    p = torch.tensor(0.1, requires_grad=True)
    scaled(p, 0.25).backward()
    assert scaled(p, 0.25).item() == p.item() and p.grad.item() == 0.25


def test_steps_start_where_the_paper_starts_them():
    W, x = torch.tensor([[1.0, -2.0], [3.0, -2.0]]), torch.tensor([[0.0, 1.0, 2.0, 5.0]])
    assert WeightStep(W, 3).s.item() == pytest.approx(2 * 2 / 3**0.5) and WeightStep(
        W, 3
    ).g == pytest.approx(1 / 12**0.5)
    assert InputStep(x, 2).s.item() == pytest.approx(2 * 2 / 3**0.5) and InputStep(
        x, 2
    ).g == pytest.approx(1 / 12**0.5)
    assert not InputStep(x, 2).beta.requires_grad and InputStep(x - 1, 2).beta.requires_grad


@pytest.mark.parametrize("signed", [False, True])
def test_the_grid_of_an_input_is_the_same_once_it_is_fixed(signed):
    x = torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    x = x if signed else x.relu()
    step = InputStep(x, 4)
    assert isinstance(step.fixed(), Static) and (step.fixed().zero > 0) == signed
    torch.testing.assert_close(step.fixed()(x), step(x))


def test_rows_that_are_multiples_of_whole_numbers_become_codes_negative_and_empty_rows_too():
    q = torch.tensor([[-2.0, 1.0, 0.0], [-2.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    W = torch.tensor([[0.5], [-0.25], [7.0]]) * q
    codes = as_codes(W, q, 2)
    assert codes.codes.tolist() == [[0, 3, 2], [0, 3, 3], [2, 2, 2]]
    assert torch.equal(codes.decode(W.shape), W)


def stored(model, images, bits):
    """Store `model`, half of whose gammas are negative, and return by how much its
    outputs change, squared, relative.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[::2] *= -1
    add_steps(model, images, bits)
    with torch.no_grad():
        before = model(images)
        store_steps(model, images[:1])
        return (model(images) - before).square().mean() / before.square().mean()


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit"])
@pytest.mark.parametrize("bits", [2, 8])
def test_storing_changes_no_output_but_for_the_rounding_of_steps_to_float16(
    make_model, track_data, monkeypatch, name, bits
):
    def exact(W, q, bits):
        codes = as_codes(W, q, bits)
        return replace(
            codes, scale=(W * q).sum(1, keepdim=True) / q.square().sum(1, keepdim=True).clamp(min=1)
        )

    monkeypatch.setattr(methods.lsq, "as_codes", exact)
    model = make_model(name)
    assert stored(model, track_data.calibration[:32], bits) < 1e-3
    assert name == "vit" or any(
        (layer.weight_codes.scale < 0).any() for layer in weighted(model).values()
    )


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit"])
def test_storing_changes_little_at_8_bits(make_model, track_data, name):
    assert stored(make_model(name), track_data.calibration[:32], 8) < 1e-2


def test_steps_and_offsets_get_no_weight_decay_and_inputs_after_relu_no_offset(
    make_model, track_data
):
    model, signs = make_model("resnet"), {}
    observe(
        model,
        weighted(model),
        track_data.calibration[:32],
        lambda name, x: signs.update({name: bool(x.min() < 0)}),
    )
    add_steps(model, track_data.calibration[:32], 4)
    steps = {name: p for name, p in model.named_parameters() if name.endswith((".s", ".beta"))}
    assert len(steps) == 3 * len(weighted(model)) and all(p.ndim == 0 for p in steps.values())
    learned = {
        name.removesuffix(".input_quantiser.beta")
        for name, p in steps.items()
        if name.endswith("beta") and p.requires_grad
    }
    assert learned == {name for name, negative in signs.items() if negative} != set()


def test_a_learned_step_ends_with_less_error_than_minmax_and_than_its_start():
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(64, 32, generator=generator)
    step = WeightStep(W, 2)

    def error():
        return (step(W) - W).square().mean()

    start, optimiser = error().item(), torch.optim.SGD([step.s], lr=10.0)
    for _ in range(200):
        optimiser.zero_grad()
        error().backward()
        optimiser.step()
    highest = W.abs().max() / 2
    minmax = ((W / highest).round().clamp(-2, 1) * highest - W).square().mean()
    assert error() < 0.9 * start and error() < 0.5 * minmax


def fitted(model, x, labels, steps):
    """Train `model` by Adam and return its loss."""
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.005)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
    return nn.functional.cross_entropy(model(x), labels).item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_bits_trained_lose_less_than_half_of_what_two_bits_rounded_lose(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    )
    x = torch.randn(512, 16)
    labels = copy.deepcopy(model)(x).argmax(1)
    dense = fitted(model, x, labels, 150)
    rounded = copy.deepcopy(model)
    for layer in prunable(rounded).values():
        layer.weight.data = round_to_nearest(layer.weight, rule(2, 32)).decode(layer.weight.shape)
    add_steps(model, x, 2)
    lost = fitted(model, x, labels, 150) - dense
    assert lost < 0.5 * (nn.functional.cross_entropy(rounded(x), labels).item() - dense)


def test_lsq_leaves_plain_layers_with_codes_and_fixed_grids(make_model, make_data):
    model = LSQ(3).compress(make_model("mobilenet"), make_data("mobilenet"))
    inner = prunable(model)
    for key, layer in weighted(model).items():
        assert layer.weight_codes.bits == (3 if key in inner else 8)
        assert layer.input_quantiser.top == 2**layer.weight_codes.bits - 1
        assert torch.equal(
            layer.weight, layer.weight_codes.decode(layer.weight.shape)
        ) and not parametrize.is_parametrized(layer)


def test_settings_outside_the_range_are_refused():
    assert TypeAdapter(LSQ).validate_python({"bits": 3}) == LSQ(3)
    for wrong in ({"bits": 1}, {"bits": 5}, {"rate": 0.1}):
        with pytest.raises(ValidationError):
            TypeAdapter(LSQ).validate_python(wrong)
