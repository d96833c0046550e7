"""The Python door on somebody's own model: what it gives, what it leaves alone, and one
line for what it cannot do.
"""

import doctest
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import shrinkmark
from harness.data.splits import digest
from harness.own.own_data import learnt
from harness.point import store
from harness.run import registry
from methods import Split
from methods.gptq import GPTQ

WIDTH, CLASSES = 16, 4


def built(width: float = 1.0) -> nn.Module:
    """Build a small classifier of 12 x 12 pixels, in train mode."""
    first, second = round(WIDTH * width), round(2 * WIDTH * width)
    layers = (
        nn.Conv2d(3, first, 3),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2),
        nn.ReLU(),
    )
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(second, CLASSES))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return built()


@pytest.fixture
def images():
    """80 images in four classes, which differ in the mean of their channels."""
    torch.manual_seed(1)
    return torch.rand(80, 3, 12, 12) + (torch.arange(80) % CLASSES)[:, None, None, None]


@pytest.fixture
def labels():
    return torch.arange(80) % CLASSES


def test_the_examples_of_the_door_are_true():
    assert doctest.testmod(shrinkmark) == (0, 11)


def test_the_callers_model_and_generators_are_left_as_they_are(model, images, labels):
    before, state, others = (
        digest(model.state_dict()),
        torch.get_rng_state(),
        (random.getstate(), np.random.get_state()[1].tolist()),
    )
    small = shrinkmark.compress(model, "depgraph", images, labels=labels, macs=0.5)
    assert digest(model.state_dict()) == before and model.training and not small.training
    assert torch.equal(torch.get_rng_state(), state) and others == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
    )
    assert small is not model and next(small.parameters()).shape != next(model.parameters()).shape


def test_measuring_and_listing_leave_a_model_in_train_mode_as_it_is(model, images, labels):
    before = digest(model.state_dict())
    shrinkmark.measure(model, dense=model, images=images, labels=labels)
    shrinkmark.methods(model)
    assert digest(model.state_dict()) == before and model.training


def test_images_for_choices_are_drawn_from_all_classes_and_not_trained_on(images):
    labels = torch.arange(80) % 5  # in the order in which every fifth would be of one class
    tensors = learnt(images, Split(images, labels)).tensors
    assert len(tensors["train.labels"]) == 64 and len(tensors["validation.labels"]) == 16
    assert tensors["validation.labels"].unique().tolist() == [0, 1, 2, 3, 4]
    both = torch.cat([tensors["train.images"], tensors["validation.images"]])
    assert digest({"": both.flatten(1).sum(1).sort().values}) == digest(
        {"": images.flatten(1).sum(1).sort().values}
    )


def test_a_name_with_a_setting_a_configured_method_and_a_loader_give_the_same(model, images):
    small = digest(shrinkmark.compress(model, "gptq", images, bits=3).state_dict())
    assert digest(shrinkmark.compress(model, GPTQ(bits=3), images).state_dict()) == small
    assert (
        digest(
            shrinkmark.compress(
                model, "gptq", DataLoader(images, batch_size=7), bits=3
            ).state_dict()
        )
        == small
    )
    assert digest(shrinkmark.compress(model, "gptq", images, bits=2).state_dict()) != small


def test_what_comes_back_holds_the_codes_that_are_stored(model, images):
    small = shrinkmark.compress(model, "rtn", images, bits=4)
    codes = store.codes_of(small)
    assert set(codes) == {"0.weight", "3.weight", "7.weight"} and codes["3.weight"].bits == 4
    assert all(
        torch.equal(code.decode(small.state_dict()[name].shape), small.state_dict()[name])
        for name, code in codes.items()
    )


def test_training_takes_the_epochs_and_the_images_given(model, images, labels):
    train = DataLoader(TensorDataset(images, labels), batch_size=16)
    longer = shrinkmark.compress(
        model, "finetune_only", images[:8], train=train, epochs=30, share=1.0
    )
    accuracy = shrinkmark.measure(longer, dense=model.eval(), images=images, labels=labels)[
        "accuracy_percent"
    ]
    none = shrinkmark.compress(
        model, "finetune_only", images[:8], train=(images, labels), epochs=0, share=1.0
    )
    assert digest(none.state_dict()) == digest(model.state_dict())
    assert (
        accuracy
        > shrinkmark.measure(none, dense=model, images=images, labels=labels)["accuracy_percent"]
        + 20
    )


def test_a_method_that_trains_a_narrower_network_takes_fresh(model, images, labels):
    small = shrinkmark.compress(
        model, "slim", images, labels=labels, epochs=1, fresh=built, macs=0.4
    )
    row = shrinkmark.measure(small, dense=model.eval(), images=images, labels=labels)
    assert row["theoretical_speedup"] >= 2.5
    with pytest.raises(ValueError, match="give fresh=, a function of a width"):
        shrinkmark.compress(model, "slim", images, labels=labels, macs=0.4)
    with pytest.raises(ValueError, match=r"fresh\(.*\) returned int"):
        shrinkmark.compress(model, "slim", images, labels=labels, fresh=lambda width: 3, macs=0.4)


def test_a_saved_model_is_the_same_when_loaded_and_when_it_is_saved_again(model, images, tmp_path):
    small = shrinkmark.compress(model, "magnitude", images, sparsity=0.75)
    shrinkmark.save(small, tmp_path / "small")
    loaded = shrinkmark.load(tmp_path / "small")
    for count in (1, 5, 80):
        with torch.no_grad():
            torch.testing.assert_close(
                loaded(images[:count]), small(images[:count]), rtol=1e-4, atol=1e-5
            )
    assert loaded.to("cpu") is loaded and loaded.eval() is loaded and not loaded.training
    shrinkmark.save(loaded, tmp_path / "again")
    files = {path.name: path.read_bytes() for path in (tmp_path / "small").iterdir()}
    assert (
        files == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
        and len(files) == 2
    )
    row = shrinkmark.measure(
        loaded, dense=model.eval(), images=images, labels=torch.zeros(80, dtype=torch.long)
    )
    assert row["bytes"] == len(files["weights.safetensors"])


def test_what_is_measured_is_what_closed_forms_say(model, images, labels):
    row = shrinkmark.measure(model.eval(), dense=model, images=images, labels=labels)
    assert (
        row["macs"] == 10 * 10 * 27 * WIDTH + 4 * 4 * 9 * WIDTH * 2 * WIDTH + 2 * WIDTH * CLASSES
        and row["flops"] == 2 * row["macs"]
    )
    with torch.no_grad():
        assert row["accuracy_percent"] == pytest.approx(
            100 * (model(images).argmax(1) == labels).float().mean().item()
        )
    assert row["delta_points"] == row["delta_points_low"] == row["delta_points_high"] == 0
    assert (
        row["compression_ratio"] == row["theoretical_speedup"] == 1
        and row["speedup_b1_low"] <= row["speedup_b1"] <= row["speedup_b1_high"]
    )
    header = (
        (Path(shrinkmark.__file__).parent / "results" / "v3" / "digits" / "tables" / "cpu.csv")
        .read_text()
        .splitlines()[0]
        .split(",")
    )
    assert set(row.index) <= set(header), "the columns of the tables"


def test_each_method_is_listed_with_why_it_does_not_handle_the_model(model):
    found = shrinkmark.methods(model)
    assert (
        list(found.index) == registry.names()
        and found.loc["gptq", "skipped"] == ""
        and "vision transformer" in found.loc["tome", "skipped"]
    )
    with pytest.raises(
        ValueError, match="ToMe does not handle this model: not a vision transformer"
    ):
        shrinkmark.compress(model, "tome", torch.rand(4, 3, 12, 12))


def test_a_method_of_another_package_is_known_by_its_name(model, images, outside):
    assert "outside_scale" in shrinkmark.methods(model).index
    small = shrinkmark.compress(model, "outside_scale", images, factor=0.5)
    assert digest(small.state_dict()) != digest(model.state_dict())


@pytest.mark.parametrize(
    ("method", "arguments", "said"),
    [
        ("gtpq", {}, "did you mean 'gptq'"),
        ("gptq", {"bit": 3}, "did you mean 'bits'"),
        ("gptq", {"bits": 30}, "setting {'bits': 30} of method 'gptq' is impossible"),
        (GPTQ(bits=3), {"bits": 4}, "GPTQ is configured already: set bits where it is made"),
        ("depgraph", {"macs": 0.5}, "DepGraph needs labels (fine-tune): give labels="),
        (
            "gptq",
            {"images": torch.rand(4, 1, 12, 12)},
            "the model does not take images of shape (1, 12, 12)",
        ),
        ("gptq", {"images": torch.rand(3, 12, 12)}, "give images (N, C, H, W)"),
        ("gptq", {"images": torch.zeros(4, 3, 12, 12, dtype=torch.uint8)}, "of floating point"),
        ("gptq", {"images": DataLoader([])}, "the loader is empty"),
        ("gptq", {"images": DataLoader([{"x": 1}])}, "the loader must yield tensors"),
        (
            "depgraph",
            {"labels": torch.zeros(3, dtype=torch.long)},
            "one integer label an image, found (3,)",
        ),
        (
            "depgraph",
            {"labels": torch.zeros(80)},
            "one integer label an image, found (80,) of torch.float32",
        ),
        ("depgraph", {"train": torch.rand(8, 3, 12, 12)}, "train: it has no labels"),
    ],
)
def test_bad_arguments_are_one_line(model, images, method, arguments, said):
    with pytest.raises(ValueError) as raised:
        shrinkmark.compress(model, method, **({"images": images} | arguments))
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_what_is_no_classifier_is_refused(images):
    for other in (nn.Conv2d(3, 8, 3), nn.Sequential(nn.Flatten(), nn.Linear(432, 1))):
        with pytest.raises(
            ValueError, match="the model is no classifier: give one that returns logits"
        ):
            shrinkmark.compress(other, "rtn", images)


def test_what_cannot_be_stored_or_measured_is_one_line(model, images, labels, tmp_path):
    with pytest.raises(ValueError, match=r"not made by shrinkmark.compress\(\) or load\(\)"):
        shrinkmark.save(model, tmp_path / "x")
    small = shrinkmark.compress(model, "rtn", images)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="is not empty"):
        shrinkmark.save(small, tmp_path / "full")
    with pytest.raises(ValueError, match="cannot be read"):
        shrinkmark.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="they have no labels"):
        shrinkmark.measure(small, dense=model, images=images)
    with pytest.raises(ValueError, match="is for inference"):
        shrinkmark.save(small, tmp_path / "small")
        shrinkmark.load(tmp_path / "small").train()


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names())
def test_every_method_compresses_or_says_why_not(name, make_model, track_data):
    model, split = make_model("vit"), track_data.validation
    skipped = shrinkmark.methods(model).loc[name, "skipped"]
    if skipped:
        pytest.skip(skipped)
    small = shrinkmark.compress(
        model,
        name,
        split.images[:64],
        labels=split.labels[:64],
        fresh=lambda width: make_model("vit"),
    )
    assert small(split.images[:3]).shape == (3, 10)


def test_several_methods_are_tried_beside_dense_in_one_call(model, images, labels, tmp_path):
    pair = (images, labels)
    rows = shrinkmark.try_methods(
        model, train=pair, test=pair, methods=["rtn:bits=4", "tome:r=2", "depgraph:macs=0.5"],
        calibration=16, into=tmp_path,
    ).set_index("method")  # fmt: skip
    dense = shrinkmark.measure(model, dense=model, images=images, labels=labels)
    alone = shrinkmark.measure(
        shrinkmark.compress(model, "rtn", images, bits=4), dense=model, images=images, labels=labels
    )
    told = ["accuracy_percent", "bytes", "macs", "compression_ratio", "theoretical_speedup"]
    assert rows.loc["dense", told].tolist() == dense[told].tolist()
    assert rows.loc["rtn", told].tolist() == alone[told].tolist() and not rows.loc["rtn", "note"]
    assert rows.loc["depgraph", "theoretical_speedup"] > 1.5
    assert "not a vision transformer" in rows.loc["tome", "note"]
    assert np.isnan(rows.loc["tome", "bytes"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depgraph-macs=0.5", "rtn-bits=4"]
    assert shrinkmark.load(tmp_path / "rtn-bits=4")(images).shape == (80, CLASSES)
    unlabelled = shrinkmark.try_methods(
        model, train=images, test=pair, methods=["depgraph:macs=0.5", "gptq:bits=4"]
    )
    assert "needs labels" in unlabelled["note"][1] and unlabelled["bytes"][2] > 0


def test_what_cannot_be_tried_is_one_line(model, images, labels):
    for named, test, said in (
        (["rtm"], (images, labels), "did you mean 'rtn'"),
        (["rtn:bits=40"], (images, labels), "impossible"),
        (["rtn"], images, "they have no labels"),
        (["rtn"], (images[:, :1], labels), "the model does not take images"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            shrinkmark.try_methods(model, train=images, test=test, methods=named)
        assert "\n" not in str(error.value)


def test_a_method_that_fails_is_a_note_and_models_are_not_written_over(
    model, images, labels, tmp_path, monkeypatch
):
    monkeypatch.setattr(GPTQ, "compress", lambda self, model, data: [][1])
    pair = (images, labels)
    rows = shrinkmark.try_methods(
        model, train=pair, test=pair, methods=["gptq:bits=4", "rtn:bits=8"], into=tmp_path
    )
    assert rows["note"].tolist() == ["", "IndexError: list index out of range", ""]
    for arguments, said in (
        ({"into": tmp_path}, "rtn-bits=8 is there already"),
        ({"calibration": 0}, "give at least one image"),
        ({"test": (images, labels + 1)}, "labels are from 1 to 4, the model tells 4 classes apart"),
    ):
        asked = {"train": pair, "test": pair, "methods": "rtn:bits=8"} | arguments
        with pytest.raises(ValueError, match=said):
            shrinkmark.try_methods(model, **asked)
