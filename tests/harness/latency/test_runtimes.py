"""Hardware profiles: what a machine lacks, in one line, and that every runtime runs the
same artefact.
"""

import re

import pytest
import torch
import yaml

from harness.latency import hardware, runtimes
from harness.latency.runtimes import load, missing
from harness.latency.runtimes.semi_structured import fits, has_fitting
from harness.point import store
from leaderboard.records.errors import UserError
from leaderboard.records.params import HardwareParams, Params
from tests.conftest import ROOT

BASE = {
    "device": "cpu",
    "runtime": "eager",
    "threads": 1,
    "batches": [1],
    "rounds": 5,
    "warmup_rounds": 1,
}


def profile(**changed):
    return HardwareParams.model_validate(BASE | changed)


def test_the_profiles_that_are_shipped(params):
    assert list(params.hardware) == ["cpu", "cpu_ort"] and list(params.profiles)[2:] == [
        "cpu_openvino",
        "cuda",
        "cuda_graph",
        "cuda_sparse",
    ]
    assert all(profile.threads == 1 for profile in params.profiles.values())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"runtime": "cuda_graph"}, "runtime cuda_graph runs on device cuda"),
        (
            {"runtime": "semi_structured", "device": "cuda"},
            "runtime semi_structured runs on device cuda in precision bf16",
        ),
        ({"runtime": "openvino", "device": "cuda"}, "runtime openvino is measured on device cpu"),
        ({"runtime": "onnxruntime", "precision": "bf16"}, "in precision fp32"),
        (
            {"runtime": "onnx_runtime"},
            "hardware 'odd': unknown runtime 'onnx_runtime': did you mean 'onnxruntime'?",
        ),
        (
            {"runtime": "tensorrt"},
            "hardware 'odd': unknown runtime 'tensorrt': known are: cuda_graph, eager, "
            "onnxruntime, openvino, semi_structured",
        ),
    ],
)
def test_profiles_that_cannot_be_are_refused(changed, said):
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["hardware"] = {"odd": BASE | changed}
    with pytest.raises(UserError, match=re.escape(said)):
        runtimes.check(Params.model_validate(content).profiles)


def test_a_machine_says_what_it_lacks(monkeypatch):
    assert missing(profile()) is None
    assert missing(profile(threads=1000)).startswith("it asks for 1000 threads, this machine has")
    assert missing(profile(match="Cray")).startswith(
        "the profile is for 'Cray', this machine has '"
    )
    if not torch.cuda.is_available():
        assert missing(profile(device="cuda")) == "torch finds no CUDA device here"
    monkeypatch.setattr(
        runtimes, "find_spec", lambda name: None if name == "openvino" else object()
    )
    assert (
        missing(profile(runtime="openvino"))
        == "openvino not installed: pip install -e '.[runtimes]'"
    )
    assert missing(profile(runtime="onnxruntime")) is None


@pytest.mark.parametrize("runtime", ["eager", "onnxruntime", "openvino"])
@torch.inference_mode()
def test_every_runtime_runs_the_artefact(runtime, make_model, track_data, tmp_path):
    images = track_data.validation.images[:4]
    store.write(tmp_path, store.export(make_model("resnet"), images[:2]), {})
    chosen = profile(runtime=runtime)
    loaded = load(chosen, runtimes.of(chosen).prepare(tmp_path, images[:1]))
    for batch in (images, images[:1]):
        torch.testing.assert_close(
            loaded(batch)(batch), store.read(tmp_path).module(batch), rtol=1e-4, atol=1e-4
        )


def test_bf16_is_autocast(make_model, track_data, tmp_path):
    images = track_data.validation.images[:4]
    store.write(tmp_path, store.export(make_model("resnet"), images[:2]), {})
    with torch.inference_mode():
        found = load(profile(precision="bf16"), tmp_path)(images)(images)
    assert found.dtype == torch.bfloat16


def test_weights_that_sparse_tensor_cores_take_have_two_zeros_in_every_four(tmp_path):
    weight = torch.tensor([0.0, 1.0, 0.0, 2.0]).repeat(32, 16)
    assert fits(weight) and fits(weight.roll(1, 1)), "any two of the four"
    assert (
        not fits(weight.roll(1, 1) + weight) and not fits(weight[:31]) and not fits(weight[:, :60])
    )
    assert not fits(weight.reshape(32, 64, 1, 1)), "no kernel for convolutions"
    layer = torch.nn.Linear(64, 32)
    for kept, found in ((torch.ones(32, 64), False), (weight != 0, True)):
        layer.weight.data *= kept
        store.write(tmp_path, store.export(layer, torch.zeros(2, 64)), {})
        assert has_fitting(tmp_path) is found


def test_the_machine_reports_every_profile_with_its_fingerprint_and_floor(params, monkeypatch):
    monkeypatch.setattr(hardware, "ROUNDS", 5)
    few = params.model_copy(
        update={
            "hardware": {"cpu": profile(), "elsewhere": profile(match="Cray")},
            "hardware_on_request": {},
        }
    )
    here, there = hardware.report(few)
    assert here.lacking is None and here.noise_floor > 0 and there.noise_floor is None
    served, elsewhere = str(here), str(there)
    assert (
        "cpu: fingerprint " in served
        and "noise floor ±" in served
        and elsewhere.startswith("elsewhere: not here: the profile is for 'Cray'")
    )
