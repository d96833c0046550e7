"""params.yaml: what is wrong with it is said in one line that names the key."""

import copy
import json
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from harness.cli.command import app
from harness.data.transform import transform_of
from harness.run import registry
from harness.run.points import expand
from harness.run.selection import Selection, selected, without
from leaderboard.records.errors import UserError
from leaderboard.records.outline import read_outline
from leaderboard.records.params import load_params
from tests.conftest import ROOT

GOOD = yaml.safe_load((ROOT / "params.yaml").read_text())


def write(tmp_path, content, **tracks):
    """Write params.yaml beside the committed files of the other tracks, each changed as
    `tracks` says.
    """
    (tmp_path / "params.yaml").write_text(
        content if isinstance(content, str) else yaml.safe_dump(content)
    )
    shutil.copytree(ROOT / "tracks", tmp_path / "tracks")
    for name, change in tracks.items():
        file = tmp_path / "tracks" / name / "track.yaml"
        file.parent.mkdir(exist_ok=True)
        found = yaml.safe_load(file.read_text()) if file.exists() else {}
        file.write_text(change if isinstance(change, str) else yaml.safe_dump(found | change))
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
    (
        changed("tracks", "digits", "scratch", "optimiser", "adam"),
        "tracks.digits.scratch.optimiser",
    ),
    (changed("tracks", "digits", "augment", {"flip": 2}), "tracks.digits.augment.flip"),
    (changed("seed", 3), "seed: Extra inputs"),
    (changed("run", "workers", 0), "run.workers"),
    (changed("tracks", "digits", "calibration", -1), "tracks.digits.calibration"),
    (changed("tracks", "digits", "scratch", "epochs", "many"), "tracks.digits.scratch.epochs"),
    (changed("tracks", "digits", "models", "vit", "tim", "x"), "tracks.digits.models.vit.tim"),
    (changed("methods", "rtn", {"setting": []}), "methods.rtn"),
    (changed("methods", "rtn", "settings", []), "methods.rtn.settings"),
    (
        changed("tracks", "digits", "methods", {"rtm": {"seeds": 1}}),
        "unknown method of track digits 'rtm': did you mean 'rtn'?",
    ),
    (
        changed("tracks", "digits", "methods", {"rtn": {"models": ["vits"]}}),
        "unknown model of method rtn on digits 'vits': did you mean 'vit'?",
    ),
    (
        changed("tracks", "digits", "methods", {"rtn": {"epochs": 1}}),
        "tracks.digits.methods.rtn.epochs",
    ),
    (
        changed("tracks", "digits", "methods", {"rtn": {"scratch_epochs": 0}}),
        "tracks.digits.methods.rtn.scratch_epochs",
    ),
    (changed("methods", "rtn", "seeds", 0), "methods.rtn.seeds"),
    (
        changed("methods", "wanda__rtn", {"settings": [{}]}),
        "method wanda__rtn is the name of a chain: put it under `chains`",
    ),
    (
        changed("chains", "wanda", {"settings": [{}]}),
        "chain wanda is not named after different methods",
    ),
    (
        changed("chains", "wanda__wanda", {"settings": [{}]}),
        "chain wanda__wanda is not named after different methods",
    ),
    (
        changed("tracks", "digits", "methods", {"taylor__rtm": {"seeds": 1}}),
        "unknown method of track digits 'taylor__rtm'",
    ),
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
    assert (
        named in str(error.value)
        and "params.yaml" in str(error.value)
        and "\n" not in str(error.value)
    )


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


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ("track", "did you mean 'digits'"),
        ("method", "did you mean 'wanda'"),
        ("profile", "did you mean 'cpu'"),
    ],
)
def test_misspelt_names_in_params_get_a_suggestion(params, ask, said):
    names = {"track": "digit", "method": "wnda", "profile": "cpuu"}
    with pytest.raises(UserError, match=said):
        getattr(params, ask)(names[ask])


def test_reading_back_what_was_written_changes_no_number_so_that_fingerprints_stand():
    loaded = load_params(ROOT / "params.yaml")
    assert json.dumps(type(loaded).model_validate(loaded.model_dump()).model_dump()) == json.dumps(
        loaded.model_dump()
    )


def test_a_method_may_run_other_settings_fewer_seeds_and_fewer_models_on_one_track(tmp_path):
    own = {"settings": [{"sparsity": 0.2}], "seeds": 2, "models": ["vit"]}
    content = changed("tracks", "digits", "methods", {"random_pruning": own})
    content["tracks"]["digits"]["seeds"] = [0, 1, 2]
    params = load_params(write(tmp_path, content))
    points = expand(params, "digits", "random_pruning")
    assert [(point.model, point.setting, point.seed) for point in points] == [
        ("vit", {"sparsity": 0.2}, seed) for seed in (0, 1)
    ]
    elsewhere = expand(params, "cifar10_full", "random_pruning")
    assert {point.model for point in elsewhere} == set(params.tracks["cifar10_full"].models) and {
        point.seed for point in elsewhere
    } == {0, 1, 2}


def test_a_method_may_run_fewer_seeds_everywhere(tmp_path):
    params = load_params(write(tmp_path, changed("methods", "slim", "seeds", 1)))
    assert {point.seed for point in expand(params, "digits", "slim")} == {0}


def test_a_method_may_be_left_out_of_one_track(tmp_path):
    params = load_params(
        write(tmp_path, changed("tracks", "digits", "methods", {"slim": {"models": []}}))
    )
    assert expand(params, "digits", "slim") == [] and expand(params, "cifar10_full", "slim")


def test_a_track_may_say_once_which_models_methods_run_on_that_name_none(tmp_path):
    content = changed("tracks", "digits", "methods_on", ["vit", "mixer"])
    params = load_params(write(tmp_path, content))

    def models(params, method):
        return {point.model for point in expand(params, "digits", method)}

    assert models(params, "dense") == set(params.track("digits").models)
    assert models(params, "wanda") == models(params, "taylor__rtn") == {"vit", "mixer"}
    assert models(params, "rigl") == {"resnet"}, "a method that names models runs on those"
    asked = selected(params, "digits", Selection(models=("mobilenet", "vit")))
    assert models(asked, "wanda") == {"mobilenet", "vit"}, "and so does who names a model"
    assert models(without(params, "digits", ["vit"]), "wanda") == {"mixer"}


def test_imagenet_full_differs_from_imagenet_small_in_numbers_and_has_a_title_of_its_own(params):
    small, full = params.track("imagenet_small"), params.track("imagenet_full")
    assert list(small.models) == list(full.models)
    for name, model in small.models.items():
        own = {"scratch": None, "fine_tune": None}
        assert full.models[name].model_copy(update=own) == model
        assert transform_of(full, name) == transform_of(small, name)
        assert full.fine_tune_of(name).epochs > 0 == small.fine_tune_of(name).epochs
    assert "title" in small.data and "title" not in full.data
    assert {point.model for point in expand(params, "imagenet_full", "gptq")} == set(full.models)


def test_a_method_may_train_from_scratch_for_other_epochs_on_one_track(tmp_path):
    params = load_params(
        write(tmp_path, GOOD, cifar10_full={"methods": {"rigl": {"scratch_epochs": 7}}})
    )
    usual, own = params.track("cifar10_full"), params.track_of("cifar10_full", "rigl")
    assert {own.scratch_of(model).epochs for model in own.models} == {7} and usual.scratch_of(
        "vit"
    ).epochs == 300
    assert (
        own.scratch_of("vit") == usual.scratch_of("vit").model_copy(update={"epochs": 7})
        and own.fine_tune == usual.fine_tune
    )
    assert params.track_of("cifar10_full", "slim") == usual and params.track_of(
        "digits", "slim"
    ) == params.track("digits")


def test_a_track_in_a_file_has_what_it_does_not_say_from_its_base(tmp_path):
    params = load_params(
        write(
            tmp_path,
            GOOD,
            brief={"base": "cifar10_full", "seconds": 7.0},
            of_digits={"base": "digits"},
        )
    )
    full, brief = params.track("cifar10_full"), params.track("brief")
    assert brief == full.model_copy(update={"seconds": 7.0}) and params.track(
        "of_digits"
    ) == params.track("digits")


def test_tracks_are_shown_in_the_order_asked_for_and_the_others_as_they_stand(tmp_path):
    own = {"later": {"base": "digits"}, "brief": {"base": "digits"}}
    content = {**GOOD, "shown_first": ["later", "gone", "later"]}
    params = load_params(write(tmp_path, content, **own))
    assert params.shown == ["later", *[name for name in params.tracks if name != "later"]]
    assert tuple(params.shown) == read_outline(tmp_path / "params.yaml").tracks


def test_a_track_to_be_shown_first_that_there_is_not_is_refused(tmp_path):
    own = {"brief": {"base": "digits"}}
    file = write(tmp_path, {**GOOD, "shown_first": ["brie"]}, **own)
    done = CliRunner().invoke(app, ["check", "params", "--params", str(file)])
    assert done.exit_code == 2
    assert done.stderr == "error: unknown track 'brie': did you mean 'brief'?\n"


BAD_TRACKS = [
    ({"cifar10_full": {"seeds": []}}, "tracks/cifar10_full/track.yaml does not validate: seeds: "),
    (
        {"cifar10_full": {"seed": 3}},
        "tracks/cifar10_full/track.yaml does not validate: seed: Extra inputs",
    ),
    (
        {"brief": {"base": "cifar10_ful"}},
        "tracks/brief/track.yaml: base: unknown track 'cifar10_ful': did you mean 'cifar10_full'?",
    ),
    (
        {"brief": {"base": "cifar10_full", "dataset": 3}},
        "tracks/brief/track.yaml does not validate: dataset: ",
    ),
    (
        {"brief": {"seconds": 3.0}},
        "tracks/brief/track.yaml does not validate: dataset: Field required",
    ),
    (
        {"one": {"base": "two"}, "two": {"base": "one"}},
        "tracks/one/track.yaml: base: one → two → one is a circle",
    ),
    (
        {"digits": {"base": "cifar10_full"}},
        "tracks/digits/track.yaml: track 'digits' stands in params.yaml too: keep one",
    ),
    ({"brief": "- a"}, "tracks/brief/track.yaml does not validate: the top level"),
    ({"brief": ""}, "tracks/brief/track.yaml does not validate: the top level"),
    ({"brief": "base: [1]"}, "tracks/brief/track.yaml: base: unknown track '[1]'"),
    ({"brief": "a: 1\na: 2"}, "tracks/brief/track.yaml is not valid YAML: the key a stands twice"),
    ({"bri-ef": {"base": "digits"}}, "names are lower-case letters"),
]


@pytest.mark.parametrize(
    ("tracks", "said"),
    BAD_TRACKS,
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_a_file_of_a_track_that_is_wrong_is_one_line_that_names_it(tmp_path, tracks, said):
    with pytest.raises(UserError) as error:
        load_params(write(tmp_path, GOOD, **tracks))
    assert said in str(error.value) and "\n" not in str(error.value)
