"""Chains: methods one after another, named after their steps."""

import copy
from types import SimpleNamespace

import pytest
import torch

from harness.point.chain import CannotGoOn
from harness.run import fingerprint, registry
from leaderboard.records.errors import UserError
from leaderboard.records.params import load_params
from methods.parts.network.layers import prunable
from tests.conftest import ROOT


def test_a_chain_does_what_its_steps_do_one_after_the_other(make_model, make_data):
    model = make_model("vit")
    found = registry.configure(
        "magnitude__rtn", {"magnitude.sparsity": 0.5, "rtn.bits": 4}
    ).compress(copy.deepcopy(model), make_data("vit"))
    expected = registry.configure("magnitude", {"sparsity": 0.5}).compress(
        copy.deepcopy(model), make_data("vit")
    )
    expected = registry.configure("rtn", {"bits": 4}).compress(expected.eval(), make_data("vit"))
    assert all(
        torch.equal(value, expected.state_dict()[name])
        for name, value in found.state_dict().items()
    )
    assert all(
        layer.weight_codes.bits == 4 and (layer.weight == 0).float().mean() > 0.1
        for layer in prunable(found).values()
    )


def test_a_chain_declares_what_its_steps_do_and_the_most_demanding_of_their_needs():
    made = registry.load("taylor__rtn")
    taylor, rtn = registry.load("taylor"), registry.load("rtn")
    assert (made.family, made.realisation) == ("pruning → quantization", "structural+packed")
    assert (
        made.needs == taylor.needs == "fine-tune" != rtn.needs
        and made.stochastic
        and made.paper == f"{taylor.paper}; {rtn.paper}"
    )
    assert registry.load("magnitude__wanda").realisation == "masked"


@pytest.mark.parametrize(
    ("name", "setting", "said"),
    [
        ("taylor__rtm", {}, "unknown method 'rtm': did you mean 'rtn'?"),
        (
            "taylor__rtn",
            {"rtm.bits": 4},
            "unknown step of chain taylor__rtn 'rtm': did you mean 'rtn'?",
        ),
        (
            "taylor__rtn",
            {"rtn": 4},
            "setting 'rtn' of chain taylor__rtn names no field: write rtn.FIELD: VALUE",
        ),
        ("taylor__rtn", {"rtn.bit": 4}, "unknown setting of rtn 'bit': did you mean 'bits'?"),
        (
            "taylor__rtn",
            {"rtn.bits": 99},
            "setting {'bits': 99} of method 'rtn' is impossible: bits",
        ),
    ],
)
def test_what_is_wrong_with_a_chain_is_said_in_one_line(name, setting, said):
    with pytest.raises(UserError) as error:
        registry.configure(name, setting)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_chain_skips_what_one_of_its_steps_skips(make_model):
    reason = registry.configure("layer_collapse", {"pairs": 1}).skip(make_model("resnet"))
    assert (
        reason
        and registry.configure("rtn__layer_collapse", {"layer_collapse.pairs": 1}).skip(
            make_model("resnet")
        )
        == reason
    )


def test_a_step_that_cannot_go_on_from_what_it_is_given_fails_with_its_reason(
    make_model, make_data
):
    chain = registry.configure(
        "block_drop__layer_collapse",
        {"block_drop.unit": "mlp", "block_drop.count": 6, "layer_collapse.pairs": 1},
    )
    assert chain.skip(make_model("vit")) is None
    with pytest.raises(
        CannotGoOn,
        match="LayerCollapse cannot compress what it is given: no Linear - activation - Linear pair",
    ):
        chain.compress(make_model("vit"), make_data("vit"))


def test_a_chain_is_decided_by_the_code_of_all_its_steps():
    names = fingerprint.files_of("taylor__rtn").keys()
    assert {
        "methods.taylor",
        "methods.rtn",
        "harness.point.chain",
        "methods.parts.training.train",
        "methods.parts.quantization.quantize",
    } <= names and "harness.point.chain" not in fingerprint.files_of("rtn")
    assert "torch-pruning" in fingerprint.libraries_of(
        "depgraph__rtn"
    ) and "torch-pruning" not in fingerprint.libraries_of("taylor__rtn")


def test_every_chain_of_the_experiment_names_methods_that_it_runs_too():
    params = load_params(ROOT / "params.yaml")
    assert params.chains and all(
        set(name.split("__")) <= set(params.methods) for name in params.chains
    )


def test_the_data_of_a_chain_are_those_of_its_point(make_model):
    seen = []
    first = SimpleNamespace(
        skip=lambda model: None, compress=lambda model, data: seen.append(data) or model
    )
    made = registry.load("magnitude__rtn")((first, first))
    made.compress(make_model("vit"), "data")
    assert seen == ["data", "data"]
