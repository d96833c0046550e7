"""params.yaml: what is wrong with it is said in one line that names the key."""

import copy
import json

import pytest
import yaml

from harness.run import registry
from harness.run.points import expand
from leaderboard.records.errors import UserError
from leaderboard.records.params import load_params
from tests.conftest import ROOT

GOOD = yaml.safe_load((ROOT / "params.yaml").read_text())


def write(tmp_path, content):
    (tmp_path / "params.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return tmp_path / "params.yaml"


def changed(*path_and_value):
    content = copy.deepcopy(GOOD)
    *path, last, value = path_and_value
    place = content
    for key in path:
        place = place[key]
    place[last] = value
    return content


BAD = [
    (changed("version", "one"), "version"),
    (changed("tracks", "digits", "seeds", []), "tracks.digits.seeds"),
    (changed("tracks", "digits", "device", "gpu"), "tracks.digits.device"),
    (changed("tracks", "digits", "scratch", "optimiser", "adam"), "tracks.digits.scratch.optimiser"),
    (changed("tracks", "digits", "augment", {"flip": 2}), "tracks.digits.augment.flip"),
    (changed("seed", 3), "seed: Extra inputs"),
    (changed("run", "workers", 0), "run.workers"),
    (changed("tracks", "digits", "calibration", -1), "tracks.digits.calibration"),
    (changed("tracks", "digits", "scratch", "epochs", "many"), "tracks.digits.scratch.epochs"),
    (changed("tracks", "digits", "models", "vit", "tim", "x"), "tracks.digits.models.vit.tim"),
    (changed("methods", "rtn", {"setting": []}), "methods.rtn"),
    (changed("methods", "rtn", "settings", []), "methods.rtn.settings"),
    (changed("methods", "rtn", "tracks", {"digit": {"seeds": 1}}), "unknown track of method rtn 'digit': did you mean 'digits'?"),
    (changed("methods", "rtn", "tracks", {"digits": {"models": ["vits"]}}), "unknown model of method rtn on digits 'vits': did you mean 'vit'?"),
    (changed("methods", "rtn", "tracks", {"digits": {"epochs": 1}}), "methods.rtn.tracks.digits.epochs"),
    (changed("methods", "rtn", "tracks", {"digits": {"scratch_epochs": 0}}), "methods.rtn.tracks.digits.scratch_epochs"),
    (changed("methods", "rtn", "seeds", 0), "methods.rtn.seeds"),
    (changed("methods", "wanda__rtn", {"settings": [{}]}), "method wanda__rtn is the name of a chain: put it under `chains`"),
    (changed("chains", "wanda", {"settings": [{}]}), "chain wanda is not named after different methods"),
    (changed("chains", "wanda__wanda", {"settings": [{}]}), "chain wanda__wanda is not named after different methods"),
    (changed("chains", "taylor__rtn", "tracks", {"digit": {"seeds": 1}}), "unknown track of method taylor__rtn 'digit'"),
    (changed("methods", "my-method", {"settings": [{}]}), "names are lower-case letters"),
    (changed("hardware", "cpu", "threads", 0), "hardware.cpu.threads"),
    ("version: [", "not valid YAML"),
    ("", "Input should be"),
    ("- a\n- b\n", "Input should be"),
]


@pytest.mark.parametrize(("content", "named"), BAD)
def test_what_does_not_validate_is_named_on_one_line(tmp_path, content, named):
    with pytest.raises(UserError) as error:
        load_params(write(tmp_path, content))
    assert named in str(error.value) and "params.yaml" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(UserError, match="not found: run this in the folder"):
        load_params(tmp_path / "params.yaml")


def test_the_committed_experiment_is_well_formed_down_to_every_setting(params):
    assert sum(len(expand(params, "digits", method)) for method in params.plans) > 200


def test_point_names_are_unique_and_only_stochastic_methods_get_every_seed(params):
    names = [point.id for point in expand(params, "cifar10_full", "random_pruning")]
    assert len(set(names)) == len(names) == 4 * 3 * 3
    assert {point.seed for point in expand(params, "cifar10_full", "wanda")} == {0}


@pytest.mark.parametrize(
    ("method", "setting", "said"),
    [
        ("wanda", {"sparsity": 1.0}, "sparsity"),
        ("wanda", {"sparsity": "half"}, "sparsity"),
        ("wanda", {"sparsty": 0.5}, "did you mean 'sparsity'"),
        ("rtn", {"bits": 1}, "bits"),
        ("svd", {"rho": 0}, "rho"),
        ("l1_channels", {"macs": 1.5}, "macs"),
        ("layer_collapse", {"pairs": -1}, "pairs"),
        ("block_drop", {"unit": "blok", "count": 1}, "unit"),
        ("wnda", {}, "did you mean 'wanda'"),
        ("zzzzzz", {}, "known are: adaround, "),
    ],
)
def test_an_impossible_setting_or_misspelt_name_is_one_line(method, setting, said):
    with pytest.raises(UserError) as error:
        registry.configure(method, setting)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("ask", "said"), [("track", "did you mean 'digits'"), ("method", "did you mean 'wanda'"), ("profile", "did you mean 'cpu'")])
def test_misspelt_names_in_params_get_a_suggestion(params, ask, said):
    names = {"track": "digit", "method": "wnda", "profile": "cpuu"}
    with pytest.raises(UserError, match=said):
        getattr(params, ask)(names[ask])


def test_reading_back_what_was_written_changes_no_number_so_that_fingerprints_stand():
    loaded = load_params(ROOT / "params.yaml")
    assert json.dumps(type(loaded).model_validate(loaded.model_dump()).model_dump()) == json.dumps(loaded.model_dump())


def test_a_method_may_run_other_settings_fewer_seeds_and_fewer_models_on_one_track(tmp_path):
    own = {"settings": [{"sparsity": 0.2}], "seeds": 2, "models": ["vit"]}
    params = load_params(write(tmp_path, changed("methods", "random_pruning", "tracks", {"digits": own})))
    points = expand(params, "digits", "random_pruning")
    assert [(point.model, point.setting, point.seed) for point in points] == [("vit", {"sparsity": 0.2}, seed) for seed in (0, 1)]
    elsewhere = expand(params, "cifar10_full", "random_pruning")
    assert {point.model for point in elsewhere} == set(params.tracks["cifar10_full"].models) and {point.seed for point in elsewhere} == {0, 1, 2}


def test_a_method_may_run_fewer_seeds_everywhere(tmp_path):
    params = load_params(write(tmp_path, changed("methods", "slim", "seeds", 1)))
    assert {point.seed for point in expand(params, "digits", "slim")} == {0}


def test_a_method_may_be_left_out_of_one_track(tmp_path):
    params = load_params(write(tmp_path, changed("methods", "slim", "tracks", {"digits": {"models": []}})))
    assert expand(params, "digits", "slim") == [] and expand(params, "cifar10_full", "slim")


def test_a_method_may_train_from_scratch_for_other_epochs_on_one_track(tmp_path):
    params = load_params(write(tmp_path, changed("methods", "rigl", "tracks", {"cifar10_full": {"scratch_epochs": 7}})))
    usual, own = params.track("cifar10_full"), params.track_of("cifar10_full", "rigl")
    assert {own.scratch_of(model).epochs for model in own.models} == {7} and usual.scratch_of("vit").epochs == 300
    assert own.scratch_of("vit") == usual.scratch_of("vit").model_copy(update={"epochs": 7}) and own.fine_tune == usual.fine_tune
    assert params.track_of("cifar10_full", "slim") == usual and params.track_of("digits", "rigl") == params.track("digits")
