"""What a trial is asked to do, as methods and as an experiment."""

from dataclasses import replace

import pytest

from harness.cli import stages
from harness.run.methods_named import methods_of, setting_of
from harness.trial.asked import Asked, AskedModel, added, experiment
from leaderboard.records.errors import UserError
from leaderboard.records.params import load_params
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def defaults():
    return load_params(ROOT / "params.yaml")


VIT = AskedModel("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "timm", (), {})
ASKED = Asked(
    VIT, "my_photos", "image_folder", {"folder": "/photos"}, {"rtn": [{"bits": 4}]}, 16, 0, "cpu", 3
)


def test_methods_are_those_named_those_of_the_budget_or_the_usual_few(defaults):
    assert methods_of(
        ["gptq:bits=3,percdamp=0.1", "gptq:bits=4", "rtn"], False, "calibration", defaults
    ) == {
        "gptq": [{"bits": 3, "percdamp": 0.1}, {"bits": 4}],
        "rtn": defaults.methods["rtn"].settings,
    }
    assert methods_of([], False, "calibration", defaults) == {
        name: plan.settings for name, plan in defaults.trial.items()
    }
    spelt = ["gptq:bits=4", "gptq:bits=4.0", "gptq:percdamp=1e-2,bits=4", "gptq"]
    usual = defaults.methods["gptq"].settings
    assert methods_of(spelt, False, "calibration", defaults) == {
        "gptq": [{"bits": 4}, *(setting for setting in usual if setting != {"bits": 4})]
    }
    every = methods_of([], True, "calibration", defaults)
    assert {"gptq", "rtn", "afm"} <= set(every) and "taylor" not in every and "ecoflap" not in every
    assert {"taylor", "ecoflap"} <= set(methods_of([], False, "fine-tune", defaults))


def test_the_usual_few_are_methods_at_settings_that_there_are(defaults):
    for name, plan in defaults.trial.items():
        for setting in plan.settings:
            assert setting_of(name, [f"{key}={value}" for key, value in setting.items()]) == setting


def test_a_trial_is_an_experiment_of_one_track_with_dense_first(defaults):
    made = experiment(ASKED, defaults)
    assert list(made.tracks) == ["my_photos"] and list(made.methods) == ["dense", "rtn"]
    track = made.track("my_photos")
    assert (
        list(track.models) == ["vit_tiny_patch16_224_augreg_in21k_ft_in1k"]
        and track.fine_tune.epochs == 0
    )
    assert track.data == {"folder": "/photos"} and track.imports == []
    assert made.run.workers == 3 and all(
        profile.batches == [1] for profile in made.hardware.values()
    )
    with pytest.raises(UserError, match="did you mean 'vit_tiny_patch16_224'"):
        experiment(replace(ASKED, model=replace(VIT, name="vit_tny_patch16_224")), defaults)
    with pytest.raises(UserError, match="did you mean 'labels'"):
        methods_of([], False, "label", defaults)


def test_what_is_tried_later_is_added_to_what_was_tried(defaults):
    def tried(methods):
        return experiment(replace(ASKED, methods=methods), defaults)

    first = tried({"rtn": [{"bits": 4}], "wanda": [{"sparsity": 0.5}]})
    both = added(tried({"gptq": [{"bits": 4}], "rtn": [{"bits": 8}, {"bits": 4}]}), first)
    assert {name: plan.settings for name, plan in both.methods.items()} == {
        "dense": [{}], "rtn": [{"bits": 4}, {"bits": 8}], "wanda": [{"sparsity": 0.5}], "gptq": [{"bits": 4}],
    }  # fmt: skip
    assert added(first, first) == first


@pytest.mark.parametrize(
    "options", [{"method_named": "rtn"}, {"setting": ["bits=4"]}, {"onnx": True}]
)
def test_options_of_a_model_of_one_s_own_are_not_passed_over_on_a_track(options):
    with pytest.raises(UserError, match="name its photographs with --images"):
        stages.compress("digits", params=ROOT / "params.yaml", **options)
