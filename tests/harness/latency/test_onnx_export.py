"""Artefacts as ONNX models: the same numbers in another runtime, and integers where
there are kernels for them.
"""

from collections import Counter
from copy import deepcopy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from harness.latency.onnx_export import NotExported, sort_stable, to_onnx
from harness.point import store
from harness.run import registry

INTEGER = {"QLinearConv", "MatMulIntegerToFloat", "QLinearMatMul", "QGemm"}


def artefact(model, images, folder):
    """Write the artefact of `model` as the worker does and return what was read
    back.
    """
    codes = store.codes_of(model)
    store.write(folder, store.export(deepcopy(model), images[:2]), codes)
    return store.read(folder).module


def session(content, optimised=None):
    """Load an ONNX model in ONNX Runtime with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def outputs(content, images):
    return torch.from_numpy(
        session(content).run(None, {session(content).get_inputs()[0].name: images.numpy()})[0]
    )


# one method of each way to change a program
CASES = [
    ("dense", "mobilenet", {}),
    ("rtn", "vit", {"bits": 4}),
    ("l1_channels", "resnet", {"macs": 0.5}),
    ("tome", "vit", {"r": 3}),
    ("q_exit", "vit", {"q": 0.5}),
    ("svd", "mixer", {"rho": 0.5}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "model_name", "setting"), CASES)
def test_an_exported_program_gives_the_artefacts_logits_at_any_batch_size(
    name, model_name, setting, make_brief_model, make_brief_data, track_data, tmp_path
):
    images = track_data.validation.images[:8]
    model = (
        registry.configure(name, setting)
        .compress(make_brief_model(model_name), make_brief_data(model_name))
        .eval()
    )
    module, content = artefact(model, images, tmp_path), to_onnx(tmp_path, images[:1])
    with torch.no_grad():
        torch.testing.assert_close(outputs(content, images), module(images), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            outputs(content, images[:1]), module(images[:1]), rtol=1e-3, atol=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize("model_name", ["resnet", "mobilenet", "vit", "mixer"])
def test_every_layer_of_int8_static_runs_on_integers_and_predicts_what_the_artefact_does(
    model_name, make_brief_model, make_data, track_data, tmp_path
):
    images = track_data.validation.images[:64]
    dense = make_brief_model(model_name)
    nn.init.normal_(dense.get_classifier().weight)  # a mixer begins with zeros there
    layers = sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in dense.modules())
    model = registry.configure("int8_static", {}).compress(dense, make_data(model_name)).eval()
    module, content = artefact(model, images, tmp_path), to_onnx(tmp_path, images[:1])
    session(content, tmp_path / "optimised.onnx")
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    # the classifier may stay Gemm: no kernel of it gives floats
    assert sum(found[kind] for kind in INTEGER) >= layers - 1, found
    with torch.no_grad():
        expected = module(images)
    found_logits = outputs(content, images)
    assert (found_logits.argmax(1) == expected.argmax(1)).float().mean() > 0.95
    assert (found_logits - expected).norm() < 0.05 * expected.norm()


@pytest.mark.slow
def test_a_channel_without_weights_keeps_its_bias(
    make_brief_model, make_data, track_data, tmp_path
):
    images, dense = track_data.validation.images[:8], make_brief_model("resnet")
    for norm in (module for module in dense.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.weight.data[0], norm.bias.data[0] = 0.0, 3.0  # folded: a row of zeros, and a bias
    model = registry.configure("int8_static", {}).compress(dense, make_data("resnet")).eval()
    module, content = artefact(model, images, tmp_path), to_onnx(tmp_path, images[:1])
    with torch.no_grad():
        expected = module(images)
    assert (outputs(content, images) - expected).norm() < 0.05 * expected.norm()


@pytest.mark.slow
def test_an_integer_model_is_about_as_long_as_its_weights_file(
    make_brief_model, make_data, track_data, tmp_path
):
    images = track_data.validation.images[:2]
    model = (
        registry.configure("int8_static", {})
        .compress(make_brief_model("resnet"), make_data("resnet"))
        .eval()
    )
    artefact(model, images, tmp_path)
    assert len(to_onnx(tmp_path, images[:1])) < 1.5 * (tmp_path / store.WEIGHTS).stat().st_size


@pytest.mark.slow
def test_grids_of_fewer_points_stay_float(make_brief_model, make_data, track_data, tmp_path):
    images = track_data.validation.images[:2]
    model = (
        registry.configure("smoothquant", {"activation_bits": 3})
        .compress(make_brief_model("resnet"), make_data("resnet"))
        .eval()
    )
    artefact(model, images, tmp_path)
    assert not {"QuantizeLinear", "DequantizeLinear"} & {
        node.op_type for node in onnx.load_from_string(to_onnx(tmp_path, images[:1])).graph.node
    }


def test_sorting_is_stable_and_goes_both_ways():
    class Sorted(nn.Module):
        def forward(self, x):
            up, down = (
                torch.sort(x, dim=1, stable=True),
                torch.sort(x, dim=1, stable=True, descending=True),
            )
            return torch.stack([up.values, up.indices.float(), down.values, down.indices.float()])

    x = torch.tensor([[3.0, 1.0, 3.0, 1.0, 2.0], [0.0, 0.0, 0.0, -1.0, 0.0]])
    program = torch.export.export(Sorted(), (x,))
    made = torch.onnx.export(
        program,
        (x,),
        dynamo=True,
        verbose=False,
        custom_translation_table={torch.ops.aten.sort.stable: sort_stable},
    )
    found = session(made.model_proto.SerializeToString()).run(None, {"x": x.numpy()})[0]
    np.testing.assert_array_equal(found, Sorted()(x).numpy())


def test_an_operator_without_a_translation_is_named_in_one_line(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return torch.special.zeta(x.flatten(1) + 2, self.weight)

    store.write(tmp_path, store.export(Odd().eval(), torch.ones(2, 1, 2, 2)), {})
    with pytest.raises(NotExported, match=r"No ONNX function found for .*zeta") as raised:
        to_onnx(tmp_path, torch.ones(1, 1, 2, 2))
    assert "\n" not in str(raised.value)
