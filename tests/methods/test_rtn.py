from itertools import pairwise

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from methods.parts.network.layers import prunable, weighted
from methods.rtn import RTN


def images():
    return torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def rounded(make_model, make_data, name, bits):
    return RTN(bits).compress(make_model(name), make_data(name))


def test_rtn_rounds_the_row_in_a_model(make_data):
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 1), torch.nn.Linear(1, 1))
    model[1].weight.data = torch.tensor([[-1.0, 0.6, 0.2]])
    data = make_data("vit")
    data.image_shape = (3,)
    after = RTN(8).compress(model, data)
    # 0.6 * 127 = 76.2, 0.2 * 127 = 25.4
    assert (after[1].weight_codes.codes.int() - 127).tolist() == [[-127, 76, 25]]


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_rtn_at_32_bits_leaves_the_model_as_it_is(make_model, make_data, name):
    model, dense = rounded(make_model, make_data, name, 32), make_model(name)
    assert torch.equal(model(images()), dense(images()))


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_rtn_stores_codes_of_every_layer_and_draws_no_image(make_model, make_data, name):
    data = make_data(name)
    model = RTN(3).compress(make_model(name), data)
    inner = prunable(model)
    for key, layer in weighted(model).items():
        codes = layer.weight_codes
        assert codes.bits == (3 if key in inner else 8)
        assert codes.codes.max().item() < 2**codes.bits
        assert torch.equal(layer.weight, codes.decode(layer.weight.shape))
    assert data.images_seen == 0


def test_more_bits_never_raise_the_error_of_rtn(make_model, make_data):
    dense, errors = weighted(make_model("vit")), []
    for bits in (2, 3, 4, 5, 6, 7, 8):
        layers = weighted(rounded(make_model, make_data, "vit", bits))
        errors.append(
            torch.stack([(layers[name].weight - dense[name].weight).norm() for name in dense])
        )
    for fewer, more in pairwise(errors):
        assert (more <= fewer).all()


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_eight_bits_change_the_output_little_and_two_bits_much(make_model, make_data, name):
    dense = make_model(name)(images())
    error = {
        bits: (
            (rounded(make_model, make_data, name, bits)(images()) - dense).norm() / dense.norm()
        ).item()
        for bits in (2, 8)
    }
    assert error[8] < 0.03
    assert error[2] > 5 * error[8]


def test_settings_outside_the_range_are_refused():
    settings = TypeAdapter(RTN)
    assert settings.validate_python({"bits": 4}) == RTN(4)
    for wrong in ({"bits": 9}, {"bits": 4, "group": 64}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
