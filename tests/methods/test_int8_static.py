"""int8_static."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from methods.int8_static import Int8Static, ends, grids, places
from methods.parts.network.batchnorm import fold_batchnorms
from methods.parts.network.layers import weighted


class Residual(nn.Module):
    """x -> relu(conv(x)) -> conv -> + x -> relu -> Linear of the mean."""

    def __init__(self):
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(inplace=True)
        self.conv2, self.act2 = nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(inplace=True)
        self.head = nn.Linear(1, 2, bias=False)

    def forward(self, x):
        y = self.conv2(self.act1(self.conv1(x)))
        y += x
        return self.head(self.act2(y).mean((2, 3)))


def test_grids_stand_where_tensors_are_made_and_activations_come_before_them():
    found = places(Residual(), torch.ones(1, 1, 2, 2))
    assert set(found.outputs) == {"act1", "conv2"}, "act2 is read by no layer: its mean is"
    assert set(found.inputs) == {"conv1", "head"}


def test_a_worked_example():
    model = Residual()
    for layer, weight in ((model.conv1, 2.0), (model.conv2, -1.0)):
        nn.init.constant_(layer.weight, weight)
    found = places(model, torch.ones(1, 1, 2, 2))
    images = torch.tensor([-1.0, 3.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    outputs, inputs = grids(model, found, images, 100.0)
    # x in [-1, 3]: step 4/255, zero 64; act1 = 2 x in [0, 6]: step 6/255, zero 0; conv2
    # = -act1 in [-6, 0]: zero 255
    assert (
        inputs["conv1"].scale.item() == pytest.approx(4 / 255, rel=1e-3)
        and inputs["conv1"].zero.item() == 64
    )
    assert (
        outputs["act1"].scale.item() == pytest.approx(6 / 255, rel=1e-3)
        and outputs["act1"].zero.item() == 0
    )
    assert (
        outputs["conv2"].scale.item() == pytest.approx(6 / 255, rel=1e-3)
        and outputs["conv2"].zero.item() == 255
    )


def test_a_percentile_leaves_out_as_much_at_either_end():
    x = torch.arange(1001.0)
    assert ends(x, 100.0).tolist() == [0, 1000] and ends(x, 99.0).tolist() == pytest.approx(
        [10, 990]
    )


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_all_that_convolutions_read_and_write_is_rounded(name, make_model):
    model = fold_batchnorms(make_model(name), torch.zeros(1, 1, 16, 16))
    found = places(model, torch.zeros(1, 1, 16, 16))
    modules = dict(model.named_modules())
    for layer_name, layer in weighted(model).items():
        home = layer_name.rpartition(".")[0]
        following = [entry for entry in found.outputs if entry.rpartition(".")[0] == home]
        assert layer_name in found.outputs or following or not isinstance(layer, nn.Conv2d), (
            f"nothing rounds what {layer_name} writes"
        )
    assert all(modules[entry] is module for entry, module in found.outputs.items())


def test_a_residual_stream_that_only_norms_read_stays_float(make_model):
    found = places(make_model("vit"), torch.zeros(1, 1, 16, 16))
    assert "blocks.0" not in found.outputs and {
        "blocks.0.norm1",
        "blocks.0.norm2",
        "blocks.0.mlp.act",
    } <= set(found.outputs)


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit", "mixer"])
def test_eight_bits_everywhere_move_the_logits_little_and_a_narrow_range_moves_them_more(
    name, make_model, make_data
):
    dense, seen = make_model(name), make_data(name)
    nn.init.normal_(dense.get_classifier().weight)  # a mixer begins with zeros there
    images = seen.validation.images[:64]

    def error(method):
        with torch.no_grad():
            return (method.compress(deepcopy(dense), seen)(images) - dense(images)).norm().item()

    whole = dense(images).norm().item()
    assert error(Int8Static()) < 0.1 * whole and error(Int8Static(percentile=75.0)) > 2 * error(
        Int8Static()
    )


def test_images_outside_of_the_range_seen_are_clipped():
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    nn.init.ones_(model[0].weight)
    found = Int8Static().compress(
        model, SimpleNamespace(calibration=torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    )
    assert found(torch.full((1, 1, 1, 1), 5.0)).item() == pytest.approx(1.0, abs=5e-3)


@pytest.mark.slow
def test_grids_are_those_of_onnxruntimes_own_quantiser(make_model, make_data, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    import onnx

    from harness.latency.onnx_export import to_onnx
    from harness.point import store

    dense, seen = make_model("resnet"), make_data("resnet")
    images = seen.calibration
    store.write(tmp_path, store.export(deepcopy(dense), images[:2]), {})
    (tmp_path / "fp32.onnx").write_bytes(to_onnx(tmp_path, images[:1]))

    class Reader(quantization.CalibrationDataReader):
        batches = iter([{"x": images.numpy()}])

        def get_next(self):
            return next(self.batches, None)

    kinds = {
        "activation_type": quantization.QuantType.QUInt8,
        "weight_type": quantization.QuantType.QInt8,
    }
    quantization.quantize_static(
        tmp_path / "fp32.onnx",
        tmp_path / "int8.onnx",
        Reader(),
        per_channel=True,
        op_types_to_quantize=["Conv", "Gemm"],
        **kinds,
    )
    theirs = inputs_of(onnx.load(tmp_path / "int8.onnx"))
    (tmp_path / "ours").mkdir()
    model = Int8Static().compress(dense, seen)
    store.write(tmp_path / "ours", store.export(deepcopy(model), images[:2]), store.codes_of(model))
    ours = inputs_of(onnx.load_from_string(to_onnx(tmp_path / "ours", images[:1])))
    assert len(ours) == len(theirs) == len(weighted(model))
    # scales, then zero points
    for own, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        assert sorted(own) == pytest.approx(
            sorted(other), rel=1e-3, abs=1 if isinstance(own[0], int) else 0
        )


def inputs_of(model):
    """Return scale and zero point of what every Conv and Gemm of an ONNX model
    reads.
    """
    from onnx.numpy_helper import to_array

    constants = {entry.name: to_array(entry) for entry in model.graph.initializer}
    constants |= {
        node.output[0]: to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant"
    }
    maker = {output: node for node in model.graph.node for output in node.output}
    grids = [
        maker[node.input[0]].input for node in model.graph.node if node.op_type in ("Conv", "Gemm")
    ]
    return [(float(constants[grid[1]]), int(constants[grid[2]])) for grid in grids]
