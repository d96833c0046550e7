"""What timm reads beside folders: the same pixels and labels as timm's own, split by the
rules of folders, kept where it is a stream, and closed to methods.
"""

import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import landlockpy
import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet as arrow

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

from timm.data import ImageDataset, create_dataset

from harness.data import dataset
from harness.data.image_files import BrokenImage
from harness.data.timm_dataset import READS, TimmDataset, named
from harness.data.timm_readers import hugging_face
from harness.data.timm_readers.images import STREAMED
from harness.run.prepare import prepare
from leaderboard.records.errors import UserError
from leaderboard.records.params import ModelParams

WITH = {  # modules that only some machines have, and their marks
    name: pytest.mark.skipif(
        importlib.util.find_spec(name) is None,
        reason=f"{name} is not installed",
    )
    for name in ("datasets", "webdataset", "tensorflow_datasets")
}
CLASSES = ("cat", "dog", "owl")
COUNTS = {"train": 20, "test": 4}  # images of each class


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The data folder and the user's cache, both empty; nothing is asked of a network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("SHRINKMARK_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def message(name, **told):
    """Load a dataset, which must fail with one line, and return the line."""
    with pytest.raises(UserError) as caught:
        TimmDataset(name, **told).load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sizes(source):
    return [len(which) for which in (source.train, source.validation, source.test)]


def assert_as_timm_has_it(source, which, theirs):
    """Pixels and labels of a split are those of a dataset of timm, in its order."""
    theirs = list(theirs)
    assert len(which) == len(theirs)
    for index, (image, label) in zip(which, theirs, strict=True):
        assert np.array_equal(
            np.asarray(source.images.decode(int(index))), np.asarray(image.convert("RGB"))
        )
        assert source.labels[index] == label
    assert source.labels.dtype == np.int64


def draw(seed, shape=(9, 11, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(seed, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(draw(seed)).save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(home):
    """A folder of images: train/ and test/ with a folder a class."""
    for split, count in COUNTS.items():
        for place, name in enumerate(CLASSES):
            (home / "photos" / split / name).mkdir(parents=True)
            for index in range(count):
                path = home / "photos" / split / name / f"{index:02d}.jpg"
                path.write_bytes(encoded(1000 * place + index + 500 * (split == "test"), "JPEG"))
    return home / "photos"


@pytest.fixture
def mnist(home):
    """MNIST of 40 and 10 images as torchvision has it; returns its root."""
    raw = home / "torch" / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for seed, (name, count) in enumerate((("train", 40), ("t10k", 10))):
        pixels = draw(seed, (count, 28, 28)).tobytes()
        labels = bytes(index % 10 for index in range(count))
        (raw / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 2051, count, 28, 28) + pixels
        )
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels)
    return home / "torch" / "mnist"


# torchvision


def test_torchvision_s_arrays_are_as_timm_has_them_and_a_tenth_is_validation(mnist):
    source = TimmDataset("torch/mnist").load()
    assert sizes(source) == [36, 4, 10] and source.classes == 10
    assert_as_timm_has_it(
        source, source.test, create_dataset("torch/mnist", root=str(mnist), split="test")
    )
    train = np.sort(np.concatenate([source.train, source.validation]))
    assert_as_timm_has_it(
        source, train, create_dataset("torch/mnist", root=str(mnist), split="train")
    )
    assert source.title == "torch/mnist, 50 images in 10 classes"
    assert source.notes[0] == "test is test" and "drawn with seed 0" in source.notes[1]
    assert TimmDataset("torch/mnist").class_names()[3] == "3 - three"
    assert list(TimmDataset("torch/mnist").closed()) == [mnist]


def test_the_hash_is_of_the_pixels_of_each_split(mnist):
    before = TimmDataset("Torch/MNIST").load().sha256
    assert before == TimmDataset("torch/mnist", root=str(mnist)).load().sha256
    images = mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1] + b"\x07")
    after = TimmDataset("torch/mnist").load().sha256
    assert after["train"] == before["train"] and after["test"] != before["test"]


def test_torchvision_s_files_are_read_as_files_and_classes_go_by_name(folder):
    (folder / "test" / "cat").rename(folder / "test" / "ant")
    told = {"root": "photos"}
    source = TimmDataset("torch/image_folder", **told).load()
    assert sizes(source) == [54, 6, 12] and source.classes == 4
    assert TimmDataset("torch/image_folder", **told).class_names() == ("ant", *CLASSES)
    index = int(source.test[0])
    assert source.images.paths[index] == folder / "test" / "ant" / "00.jpg"
    assert source.labels[index] == 0 and source.labels[0] == 1
    assert "train has no images of 1 of 4 classes: ant" in source.notes
    theirs = ImageDataset(str(folder / "test"))
    assert_as_timm_has_it(
        source, source.test, [(image, [0, 2, 3][label]) for image, label in theirs]
    )
    (folder / "test" / "dog" / "00.jpg").write_bytes(b"no image")
    with pytest.raises(BrokenImage, match=r"00.jpg is no image"):
        source.images.decode(int(source.test[4]))


def test_a_single_split_is_split_as_a_folder_is(folder):
    source = TimmDataset("torch/image_folder", root=str(folder / "train")).load()
    assert sizes(source) == [36, 6, 18]
    assert np.bincount(source.labels[source.test]).tolist() == [6, 6, 6]
    assert source.notes[0].startswith("test is 30 % of all images, drawn with seed 0, stratified")


def test_a_list_of_classes_gives_the_order_of_the_model(folder, home):
    (home / "classes.txt").write_text("owl\nant\ndog\ncat\n")
    told = {"root": "photos", "classes": "classes.txt"}
    source = TimmDataset("torch/image_folder", **told).load()
    assert (
        source.classes == 4 and source.labels[source.test].tolist() == [3] * 4 + [2] * 4 + [0] * 4
    )
    (home / "classes.txt").write_text("owl\nant\n")
    assert "class 'cat' of torch/image_folder is not in the list of classes" in message(
        "torch/image_folder", **told
    )


def test_a_track_of_it_is_prepared_and_broken_images_are_left_out(track, folder, tmp_path):
    (folder / "train" / "owl" / "03.jpg").write_bytes(b"no image")
    data = {"name": "torch/image_folder", "root": "photos"}
    update = {"dataset": "timm_dataset", "data": data, "models": {"r": ModelParams(timm="resnet10t")},
              "calibration": 6, "image_size": 16, "interpolation": None, "crop": None, "normalise": None}  # fmt: skip
    with pytest.raises(UserError, match=r"03.jpg is no image"):
        prepare(track.model_copy(update=update), tmp_path / "out")
    update["data"] = data | {"skip_broken": True, "title": "Photos"}
    made = prepare(track.model_copy(update=update), tmp_path / "out")
    assert made.images.train + made.images.validation == 59 and made.title == "Photos"
    assert made.notes[-1] == "1 files that are no images were left out"
    assert sorted(made.sources) == ["test", "train"]


# what is told


def test_splits_that_are_told_and_what_is_left(folder):
    for name in ("val", "validation"):
        (folder / "test").rename(folder / name) if name == "val" else (folder / "val").rename(
            folder / name
        )
        assert sizes(TimmDataset("torch/image_folder", root="photos").load()) == [54, 6, 12]
    told = {"root": "photos", "test": "train"}
    assert sizes(TimmDataset("torch/image_folder", **told).load()) == [0, 12, 60]
    assert "did you mean 'train'" in message("torch/image_folder", root="photos", test="trian")
    assert "train, train are of one split" in message(
        "torch/image_folder", root="photos", train="train", test="train"
    )
    assert "no test split, found train, validation: name one with `test`" in message(
        "torch/image_folder", root="photos", validation="validation"
    )


def test_slices_of_one_split_are_refused_and_a_sliced_one_leaves_nothing_for_others():
    told = TimmDataset("hfds/x", test="train[80%:]")
    layout = told._layout(["train", "extra"], READS["hfds"])
    assert (layout.train, layout.validation, layout.test) == (None, None, "train[80%:]")
    two = TimmDataset("hfds/x", train="train", test="train[80%:]")
    with pytest.raises(UserError, match="are of one split"):
        two._layout(["train"], READS["hfds"])


@pytest.mark.parametrize(
    ("name", "modules", "package"),
    [
        ("hfds/owner/name", ["datasets"], "datasets"),
        ("hfids/owner/name", ["datasets"], "datasets"),
        ("wds/shards", ["webdataset"], "webdataset"),
        ("tfds/mnist", ["tensorflow_datasets"], "tensorflow-datasets"),
        ("tfds/mnist", ["tensorflow"], "tensorflow-cpu"),
    ],
)
def test_a_package_that_is_missing_is_one_line(name, modules, package, monkeypatch):
    monkeypatch.setattr(
        "harness.data.timm_dataset.find_spec", lambda module: None if module in modules else module
    )
    assert message(name) == f"{name} needs the package {package}: pip install {package}"


def test_what_is_wrong_with_a_name_is_one_line(home):
    assert message("hfd/x").startswith("unknown dataset of timm 'hfd/x': did you mean")
    assert message("cifar10").startswith("unknown dataset of timm 'cifar10'")
    said = message("torch/mnsit")
    assert said.startswith(
        "torch/mnsit (train) cannot be read: AssertionError: Unknown torchvision"
    )
    assert "Dataset not found" in message("torch/mnist") and "download: yes" in message(
        "torch/mnist"
    )
    assert f"there is no folder {home / 'gone'}" in message("torch/image_folder", root="gone")
    with pytest.raises(UserError, match=r"data of dataset 'timm_dataset': .*splits"):
        dataset("timm_dataset", {"name": "torch/mnist", "splits": "x"})


def test_what_a_command_calls_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hfds" / "photos").mkdir(parents=True)
    (tmp_path / "shards").mkdir()
    (tmp_path / "train").mkdir()
    found = named("hfds/photos")  # is a folder
    assert (found.dataset, found.data) == ("image_folder", {"folder": f"{tmp_path}/hfds/photos"})
    assert named("photos").dataset == "image_folder" and named("photos").called == "photos"
    found = named("hfds/Owner/name:input_key=img,test=train,download=no")
    assert found.dataset == "timm_dataset" and found.called == "name"
    assert found.data == {
        "name": "hfds/Owner/name", "input_key": "img", "test": "train", "download": False
    }  # fmt: skip
    assert named("wds/shards").data == {"name": f"wds/{tmp_path}/shards"}
    assert named("wds//elsewhere/x").data == {"name": "wds//elsewhere/x"}
    assert named("tfds/x:1.0.0").data == {"name": "tfds/x:1.0.0"}
    assert named("torch/train:root=shards").data == {
        "name": "torch/train", "root": f"{tmp_path}/shards"
    }  # fmt: skip
    assert dataset("timm_dataset", named("torch/cifar10:download=yes").data).download is True
    with pytest.raises(UserError, match="'root' is not written field=value"):
        named("torch/cifar10:test=test,root")


# Hugging Face


@pytest.fixture
def parquet(home):
    """Parquet shards as Hugging Face's hub has them, whose columns have names of their
    own; the test images beside the labels of another kind.
    """
    import datasets

    features = datasets.Features(
        {
            "img": datasets.Image(),
            "label": datasets.ClassLabel(names=list(CLASSES)),
            "coarse": datasets.Value("string"),
        }
    )
    (home / "table").mkdir()
    for split, count in COUNTS.items():
        rows = [
            {
                "img": {"bytes": encoded(index + 500 * (split == "test"), "JPEG"), "path": None},
                "label": index % 3,
                "coarse": ("pet", "pet", "bird")[index % 3],
            }
            for index in range(3 * count)
        ]
        table = datasets.Dataset.from_list(rows, features=features)
        table.to_parquet(home / "table" / f"{split}-00000-of-00001.parquet")
    return home / "table"


@WITH["datasets"]
def test_tables_are_as_timm_has_them_and_hashed_by_their_encoded_images(parquet, home):
    told = {"root": "hf"}
    source = TimmDataset("hfds/table", **told).load()
    assert sizes(source) == [54, 6, 12]
    for split in ("train", "test"):
        theirs = create_dataset(
            f"hfds/{parquet}", root=str(home / "hf"), split=split, input_key="img"
        )
        which = source.test if split == "test" else np.arange(60)
        assert_as_timm_has_it(source, which, theirs)
    assert TimmDataset("hfds/table", **told).class_names() == CLASSES
    other = TimmDataset(f"hfds/{parquet}", target_key="coarse", **told)
    assert other.load().sha256 == source.sha256 and other.class_names() == ("bird", "pet")
    assert other.load().labels[:3].tolist() == [1, 1, 0]
    assert source.title == "hfds/table, 72 images in 3 classes"


@WITH["datasets"]
def test_a_hash_of_tables_is_made_once_for_each_state_of_them(parquet, monkeypatch):
    made = []
    own = hugging_face._digests
    monkeypatch.setattr(
        hugging_face, "_digests", lambda asked, split, *rest: (made.append(split), own(asked, split, *rest))[1]
    )  # fmt: skip
    before = TimmDataset("hfds/table", root="hf").load().sha256
    assert TimmDataset("hfds/table", root="hf").load().sha256 == before and made == [
        "train",
        "test",
    ]
    (parquet / "test-00000-of-00001.parquet").write_bytes(
        (parquet / "train-00000-of-00001.parquet").read_bytes()
    )
    after = TimmDataset("hfds/table", root="hf").load().sha256
    assert after["test"] == after["train"] == before["train"] != before["test"]


@WITH["datasets"]
@pytest.mark.parametrize("name", ["hfds/photos", "hfids/photos"])
def test_a_folder_is_read_by_hugging_face_too_as_a_table_and_as_a_stream(folder, home, name):
    source = TimmDataset(name, root="hf").load()
    theirs = ImageDataset(str(folder / "test"))
    assert sizes(source) == [54, 6, 12] and source.classes == 3
    assert_as_timm_has_it(source, source.test, theirs)
    assert (home / STREAMED).is_dir() == (name == "hfids/photos")


@WITH["datasets"]
def test_a_table_that_names_images_elsewhere_is_refused(home, tmp_path):
    import datasets

    (tmp_path / "elsewhere.png").write_bytes(encoded(0))
    (home / "table").mkdir()
    rows = {"image": [str(tmp_path / "elsewhere.png")] * 4, "label": [0, 1, 0, 1]}
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    arrow.write_table(table.data.table, home / "table" / "train.parquet")  # paths, no bytes
    assert f"names an image outside of it, {tmp_path / 'elsewhere.png'}" in message(
        "hfds/table", root="hf"
    )


@WITH["datasets"]
def test_a_broken_image_of_a_table_is_named_by_its_row_and_left_out(parquet, track, tmp_path):
    import datasets

    file = parquet / "test-00000-of-00001.parquet"
    table = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "c"))
    rows = list(table.cast_column("img", datasets.Image(decode=False)))
    rows[5]["img"]["bytes"] = rows[5]["img"]["bytes"][:200]
    datasets.Dataset.from_list(rows, features=table.features).to_parquet(file)
    source = TimmDataset("hfds/table", root="hf").load()
    with pytest.raises(BrokenImage, match=r"hfds/table \(test\), image 5, is no image or is cut"):
        source.images.decode(int(source.test[5]))
    assert message("hfids/table", root="hf", input_key="img").startswith(
        "hfids/table (test) cannot be read: "
    )
    data = {"name": "hfds/table", "root": "hf", "skip_broken": True}
    update = {"dataset": "timm_dataset", "data": data, "models": {"r": ModelParams(timm="resnet10t")},
              "calibration": 6, "image_size": 16, "interpolation": None, "crop": None, "normalise": None}  # fmt: skip
    made = prepare(track.model_copy(update=update), tmp_path / "out")
    assert made.images.test == 11 and "1 files that are no images" in made.notes[-1]


@WITH["datasets"]
def test_what_a_table_lacks_is_one_line(parquet, home):
    assert message("hfds/table", root="hf", input_key="image") == (
        "hfds/table (train) has no column 'image', found img, label, coarse: name one with "
        "`input_key`"
    )
    assert "found img, label, coarse: name one with `target_key`" in message(
        "hfds/table", root="hf", target_key="fine"
    )
    (home / "empty").mkdir()
    assert message("hfds/empty", root="hf").startswith("hfds/empty (its splits) cannot be read: ")
    assert "unknown split of hfds/table 'tset'" in message("hfds/table", root="hf", test="tset")


@WITH["datasets"]
def test_images_without_labels_are_one_line(home):
    import datasets

    (home / "table").mkdir()
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])}
    )
    for split, label in (("train", 0), ("test", -1)):
        rows = [
            {"image": {"bytes": encoded(row), "path": None}, "label": label} for row in range(9)
        ]
        table = datasets.Dataset.from_list(rows, features=features)
        table.to_parquet(home / "table" / f"{split}.parquet")
    assert message("hfds/table", root="hf").startswith(
        "hfds/table (test) has 9 of 9 images without one label each, like -1: accuracy needs labels"
    )


# WebDataset


def shard(file, samples):
    """Write a shard of WebDataset."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for index, parts in enumerate(samples):
            for kind, content in parts.items():
                member = tarfile.TarInfo(f"{index:06d}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def samples(split, start, count):
    seeds = range(start + 500 * (split == "test"), start + 500 * (split == "test") + count)
    return [{"jpg": encoded(seed, "JPEG"), "cls": str(seed % 3).encode()} for seed in seeds]


@pytest.fixture
def wds(home):
    """Two shards to train on and one to test, which lie in the data folder."""
    for index in range(2):
        shard(home / "shards" / f"x-train-000{index}.tar", samples("train", 30 * index, 30))
    shard(home / "shards" / "x-test-0000.tar", samples("test", 0, 12))
    return home / "shards"


@WITH["webdataset"]
def test_shards_are_as_timm_has_them_and_read_once(wds, home, monkeypatch, capfd):
    source = TimmDataset("wds/shards").load()
    assert sizes(source) == [54, 6, 12] and source.classes == 3
    for which, split in (
        (np.arange(60), "x-train-{0000..0001}.tar"),
        (source.test, "x-test-0000.tar"),
    ):
        theirs = create_dataset("wds/x", root=str(wds), split=split)
        assert_as_timm_has_it(source, which, theirs)
    assert set(source.images.paths) == set(wds.glob("*.tar"))
    assert TimmDataset("wds/shards").class_names() == ()
    files = list((home / STREAMED).iterdir())
    assert len(files) == 2 and all(file.suffix == ".arrow" for file in files)
    capfd.readouterr()
    monkeypatch.setattr(
        "harness.data.timm_readers.images._keep", lambda *_: pytest.fail("is read again")
    )
    again = TimmDataset("wds/x", root=str(wds)).load()
    assert again.sha256 == source.sha256 and capfd.readouterr().err == ""


@WITH["webdataset"]
def test_shards_that_change_are_read_again_and_hashed_by_their_pixels(wds, home):
    before = TimmDataset("wds/shards").load().sha256
    again = [{**one, "txt": b"more"} for one in samples("test", 0, 12)]
    shard(wds / "x-test-0000.tar", again)
    assert TimmDataset("wds/shards").load().sha256 == before
    assert len(list((home / STREAMED).iterdir())) == 3
    shard(wds / "x-test-0000.tar", again[::-1])
    after = TimmDataset("wds/shards").load().sha256
    assert after["train"] == before["train"] and after["test"] != before["test"]


@WITH["webdataset"]
def test_a_track_names_shards_and_timm_s_list_names_splits(wds, home):
    told = {"train": "x-train-{0000..0000}.tar", "test": "x-train-0001.tar"}
    assert sizes(TimmDataset("wds/shards", **told).load()) == [30, 12, 30]
    told = {"train": "x-train-{0000..0001}.tar", "test": "x-train-0001.tar"}
    assert "share files: no image may be in two splits" in message("wds/shards", **told)
    each = {"name": "", "shard_lengths": [30], "num_samples": 30}
    splits = {
        "train": {**each, "filenames": ["x-train-0000.tar"]},
        "validation": {**each, "filenames": ["x-train-0001.tar"]},
    }
    (wds / "_info.json").write_text(json.dumps({"splits": splits}))
    source = TimmDataset("wds/shards").load()
    assert sizes(source) == [27, 3, 30] and source.notes[0] == "test is validation"


@WITH["webdataset"]
def test_labels_of_the_json_beside_an_image(wds, home):
    rows = [
        {"jpg": encoded(seed), "json": json.dumps({"y": seed % 2}).encode()} for seed in range(20)
    ]
    shard(home / "other" / "a.tar", rows)
    source = TimmDataset("wds/other", target_key="y").load()
    assert sizes(source) == [12, 2, 6] and np.bincount(source.labels).tolist() == [10, 10]
    (home / "classes.txt").write_text("no\nyes\nperhaps\n")
    told = TimmDataset("wds/other", target_key="y", classes="classes.txt")
    assert told.load().classes == 3 and told.class_names() == ("no", "yes", "perhaps")
    assert "cannot be read: WdsTargetKeyError" in message("wds/other", target_key="z")


@WITH["webdataset"]
def test_what_timm_passes_over_in_a_shard_is_one_line_or_left_out(wds, home):
    broken = samples("test", 0, 12)
    broken[4]["jpg"] = broken[4]["jpg"][:300]
    shard(wds / "x-test-0000.tar", broken)
    said = message("wds/shards")
    assert said.startswith("wds/shards (test), 1 of its samples, is no image or is cut off (")
    assert "(OSError('Truncated File Read')): replace it" in said and "--skip-broken" in said
    assert len(list((home / STREAMED).iterdir())) == 1  # the other split
    source = TimmDataset("wds/shards", skip_broken=True).load()
    assert sizes(source) == [54, 6, 11]
    assert "samples of test that are broken are left out" in source.notes


@WITH["webdataset"]
def test_a_kept_stream_that_is_damaged_is_one_line(wds, home):
    TimmDataset("wds/shards").load()
    for file in (home / STREAMED).iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    assert "delete it and run its stage again" in message("wds/shards")


@WITH["webdataset"]
def test_a_folder_without_shards_is_one_line(home):
    assert message("wds/gone").startswith(f"no folder of shards {home / 'gone'}: ")
    (home / "empty").mkdir()
    assert message("wds/empty").startswith(f"no shards (.tar) in {home / 'empty'}")
    assert "has no images in all" in (shard(home / "none" / "a.tar", []), message("wds/none"))[1]


# TensorFlow


TENSORFLOW = """
import sys
import numpy as np
import tensorflow_datasets as tfds

class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        label = tfds.features.ClassLabel(names=["cat", "dog"])
        image = tfds.features.Image(shape=(None, None, 3))
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"image": image, "label": label}))

    def _split_generators(self, downloads):
        return {"train": self._generate_examples(0, 40), "test": self._generate_examples(100, 10)}

    def _generate_examples(self, first, count):
        for seed in range(first, first + count):
            pixels = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), np.uint8)
            yield seed, {"image": pixels, "label": seed % 2}
"""
AS_TIMM = """
import methods
import sys
import numpy as np
from timm.data import create_dataset
from harness.data.timm_dataset import TimmDataset
from tiny_package.tiny import Tiny

Tiny(data_dir=sys.argv[1]).download_and_prepare()
told = TimmDataset("tfds/tiny", root=sys.argv[1])
source = told.load()
assert told.class_names() == ("cat", "dog") and [len(source.train), len(source.validation), len(source.test)] == [36, 4, 10]
theirs = create_dataset("tfds/tiny", root=sys.argv[1], split="test")
for index, (image, label) in zip(source.test, theirs, strict=True):
    assert np.array_equal(np.asarray(source.images.decode(int(index))), np.asarray(image))
    assert source.labels[index] == label
"""


@pytest.mark.slow
@WITH["tensorflow_datasets"]
def test_tensorflow_s_are_as_timm_has_them(home, tmp_path):
    (tmp_path / "tiny_package").mkdir()
    (tmp_path / "tiny_package" / "__init__.py").touch()
    (tmp_path / "tiny_package" / "tiny.py").write_text(TENSORFLOW)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-c", AS_TIMM, str(home / "tensorflow")]
    environment = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert not done.returncode, done.stderr[-2000:]


# what is closed


def test_all_places_in_which_it_may_lie_are_closed_and_no_package_is_needed(
    home, monkeypatch, tmp_path
):
    def closed(name, **told):
        return {
            path.relative_to(tmp_path).as_posix() for path in TimmDataset(name, **told).closed()
        }

    monkeypatch.setattr(hugging_face.constants, "HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(hugging_face.constants, "HF_XET_CACHE", str(tmp_path / "hf" / "xet"))
    monkeypatch.setattr(hugging_face.constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    for name in ("datasets--owner--name", "models--owner--name"):
        (tmp_path / "hf" / "hub" / name).mkdir(parents=True)
    hub = {"hf/datasets", "hf/xet", "hf/hub/datasets--owner--name"}
    assert closed("hfds/owner/name") == hub
    assert closed("hfds/owner/name", root="own") == hub | {"data/own"}
    assert closed("hfids/owner/name") == hub | {"data/streamed"}
    (home / "photos").mkdir()
    assert closed("hfds/photos") == hub | {"data/photos"}
    assert closed("wds/shards") == {"data/shards", "data/streamed"}
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tf"))
    assert closed("tfds/mnist") == {"tf", "data/streamed"}
    assert closed("torch/CIFAR100") == {"data/torch/cifar100"}
    (tmp_path / "blobs").mkdir()
    (home / "shards").mkdir()
    (home / "shards" / "a.tar").symlink_to(tmp_path / "blobs" / "1")
    (home / "shards" / "more").symlink_to(tmp_path / "blobs", target_is_directory=True)
    (home / "shards" / "b.tar").symlink_to(home / "shards" / "c.tar")
    assert closed("wds/shards") >= {"data/shards", "data/streamed", "blobs"}
    monkeypatch.setenv("SHRINKMARK_DATA", str(tmp_path / "gone"))
    assert Path("shards") in TimmDataset("wds/shards").closed()


GUARDED = """
import sys
from pathlib import Path
from harness import data
from harness.run.guard import close

close(data.closed("timm_dataset", {"name": "torch/mnist"}))
for name in sys.argv[1:]:
    try:
        print(len(Path(name).read_bytes()) > 0)
    except PermissionError:
        print("closed")
assert not {"datasets", "webdataset", "tensorflow", "sklearn"} & set(sys.modules)
"""


@pytest.mark.skipif(not landlockpy.supported(), reason="this kernel has no Landlock")
def test_no_guarded_process_reads_them(mnist, home):
    (home / "open.txt").write_text("for all")
    files = [mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte", home / "open.txt"]
    command = [sys.executable, "-c", GUARDED, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.stdout.split() == ["closed", "True"] and not done.returncode, done.stderr
