"""Class folders found among the classes that a model tells apart."""

import pytest
import timm
from safetensors.torch import save_file

from harness.trial.classes import _by_name, _ids, _plain, class_list, descriptions, model_classes
from leaderboard.records.errors import UserError
from leaderboard.records.params import ModelParams

IDS = _ids(1000)
SMALL = "test_resnet.r160_in1k"  # 0.5 million parameters, 1,000 classes


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(timm.create_model(SMALL).state_dict(), file)
    return ModelParams(timm=SMALL, weights=str(file))


def test_folders_are_found_by_id_and_by_any_name_of_imagenet(model):
    folders = ["goldfish", "n01440764", "Tiger_Cat", "man-eating shark"]
    found = class_list(folders, model)
    assert len(found) == 1000 and found[3].startswith("n")
    assert {name: found.index(name) for name in folders} == {
        "goldfish": 1,
        "n01440764": 0,
        "Tiger_Cat": 282,
        "man-eating shark": 2,
    }


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (["goldfish", "my cat"], "'my cat' is none of them"),
        (["goldfish", "crane"], "'crane' stands for 2 of them"),  # the bird and the machine
        (["goldfish", "Carassius auratus"], "two class folders stand for the same class"),
    ],
)
def test_folders_that_are_not_its_classes_are_one_line(model, folders, said):
    with pytest.raises(UserError, match=said) as error:
        class_list(folders, model)
    assert "\n" not in str(error.value)


def test_a_model_for_as_many_classes_as_there_are_folders_is_taken_at_its_word(model, tmp_path):
    save_file(timm.create_model(SMALL, num_classes=3).state_dict(), tmp_path / "three.safetensors")
    own = model.model_copy(update={"weights": str(tmp_path / "three.safetensors")})
    assert class_list(["my cat", "my dog", "goldfish"], own) is None
    assert class_list([f"class {number}" for number in range(1000)], model) is None
    with pytest.raises(UserError, match=r"weights .* are for 3 classes.*--classes"):
        model_classes(own)
    assert model_classes(model)[:2] == ["n01440764", "n01443537"]


def test_weights_that_cannot_be_had_are_for_the_train_stage_to_tell(model):
    assert class_list(["a", "b"], model.model_copy(update={"weights": "gone.safetensors"})) is None


def test_all_of_its_classes_called_by_name_are_put_into_its_order(model):
    by_name = _by_name(IDS)
    names = [
        next((name for name in said.split(", ") if len(by_name[_plain(name)]) == 1), place)
        for place, said in zip(IDS, descriptions(1000), strict=True)
    ]
    assert class_list(sorted(names), model) == names and sorted(names) != names
    with pytest.raises(UserError, match=r"999 of 1,000 class folders .*'my cat' is not: list"):
        class_list(["my cat", *names[1:]], model)
