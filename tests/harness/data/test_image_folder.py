"""A folder of images as a dataset: which subfolder is which split, which label an image
has, what is drawn where a split is missing, and what is said of it.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import train_test_split

import methods  # noqa: F401  (before torchvision: see methods/parts/torchvision.py)
from harness.data import _split_rules, image_folder
from harness.data.digits import Digits
from harness.data.image_folder import ImageFolder
from leaderboard.records.errors import UserError

DOT = Image.new("RGB", (2, 2), (1, 2, 3))
REAL = Path(os.environ.get("SHRINKMARK_DATA", "")) / "imagenet"


@pytest.fixture
def make(tmp_path):
    """Make empty files in a folder `photos`, for nothing is decoded; a number stands
    for that many images in a folder, and 0 for the folder alone. Returns the folder.
    """

    def made(counts):
        for name, count in counts.items():
            place = tmp_path / "photos" / name
            place.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                (place / f"{index:04d}.png").touch()
        return tmp_path / "photos"

    return made


def found(folder, **fields):
    return ImageFolder(str(folder), **fields).found()


def message(folder, **fields):
    """Look for a dataset, which must fail with one line, and return the line."""
    with pytest.raises(UserError) as caught:
        found(folder, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(images, which, root):
    """The paths of a split from the folder on."""
    return [images.files.paths[index].relative_to(root).as_posix() for index in which]


def sizes(images):
    return [len(which) for which in (images.train, images.validation, images.test)]


def assert_is_a_split(images):
    splits = (images.train, images.validation, images.test)
    assert all(which.dtype == np.int64 and (np.diff(which) > 0).all() for which in splits)
    everything = np.concatenate(splits)
    assert sorted(everything) == list(range(len(images.files.paths)))
    assert images.labels.dtype == np.int64 and images.labels.shape == everything.shape


THREE = {f"{split}/{name}": 2 for split in ("train", "val", "test") for name in ("cat", "dog")}


# which subfolder is which split


def test_train_val_and_test_are_what_they_are_called(make):
    root = make(THREE)
    images = found(root)
    assert_is_a_split(images)
    for split in ("train", "validation", "test"):
        folder = "val" if split == "validation" else split
        assert {name.split("/")[0] for name in names(images, getattr(images, split), root)} == {
            folder
        }
    assert images.title == "folder photos, 12 images in 2 classes"
    assert images.notes == ("test is test/", "validation is val/", "train is train/")


@pytest.mark.parametrize("called", ["val", "validation"])
def test_without_test_the_validation_folder_is_test_and_a_tenth_of_train_validation(make, called):
    root = make({"train/cat": 40, "train/dog": 20, f"{called}/cat": 3, f"{called}/dog": 1})
    images = found(root)
    assert_is_a_split(images)
    assert sizes(images) == [54, 6, 4]
    assert np.bincount(images.labels[images.validation]).tolist() == [4, 2]
    assert images.notes[:2] == (
        f"test is {called}/",
        "validation is 6 of 60 training images, drawn with seed 0, stratified by class",
    )


def test_a_named_subfolder_is_validation(make):
    root = make({"train/cat": 2, "val/cat": 3, "other/cat": 4})
    images = found(root, validation="other")
    assert sizes(images) == [2, 4, 3]
    assert sizes(found(make({"test/cat": 5}), validation="other")) == [2, 4, 5]
    assert sizes(found(root, validation="test")) == [2, 5, 3]


def test_two_folders_to_evaluate_on_are_test_and_validation(make):
    root = make({"train/cat": 1, "val/cat": 2, "validation/cat": 3})
    assert sizes(found(root)) == [1, 3, 2]
    assert sizes(found(root, validation="val")) == [1, 2, 3]


def test_without_train_there_is_no_training_split_and_it_is_said(make):
    images = found(make({"val/cat": 3}))
    assert sizes(images) == [0, 0, 3] and images.train.dtype == np.int64
    assert images.notes == (
        "test is val/",
        "validation is empty: 0 training images are too few",
        "there is no train/: the training split is empty",
    )


def test_splits_may_be_images_without_labels(make):
    root = make({"train/cat": 20, "val": 3})
    images = found(root)
    assert images.labels[images.test].tolist() == [-1] * 3 and images.classes == ("cat",)
    assert images.notes[0] == "test is val/, whose images have no labels"
    images = found(make({"bare/train": 4, "bare/test": 2}) / "bare")
    assert sizes(images) == [4, 0, 2] and images.title == "folder bare, 6 images without labels"
    assert "validation is empty: the training images have no labels" in images.notes


def test_a_class_of_trains_is_no_training_split(make):
    root = make({"bus": 10, "train": 10})
    assert found(root).classes == ("bus", "train")
    (root / "val").mkdir()
    assert "no images" in message(root)


# one folder of class folders, or of images


def test_one_folder_of_class_folders_is_split_as_digits_are(make):
    digits = Digits().load()
    counts = np.bincount(digits.labels)
    images = found(make({str(digit): count for digit, count in enumerate(counts)}))
    assert_is_a_split(images)
    assert sizes(images) == [len(digits.train), len(digits.validation), len(digits.test)]
    for split in ("train", "validation", "test"):
        own, theirs = (np.bincount(one.labels[getattr(one, split)]) for one in (images, digits))
        assert abs(own - theirs).max() <= 1
    labels = images.labels
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=0.3, stratify=labels, random_state=0
    )
    train, validation = train_test_split(
        rest, test_size=1 / 7, stratify=labels[rest], random_state=0
    )
    assert images.test.tolist() == sorted(test) and images.train.tolist() == sorted(train)
    assert images.validation.tolist() == sorted(validation)
    assert images.notes == (
        "test is 30 % of all images, drawn with seed 0, stratified by class",
        "validation is 180 of 1,257 training images, drawn with seed 0, stratified by class",
        "train is the rest",
    )


def test_the_split_is_the_same_every_time_and_changes_with_the_seed(make, monkeypatch):
    root = make({"cat": 50, "dog": 50})
    first, again = found(root), found(root)
    assert np.array_equal(first.test, again.test) and first.files == again.files
    monkeypatch.setattr(_split_rules, "SPLIT_SEED", 1)
    assert not np.array_equal(found(root).test, first.test)


def test_a_class_too_small_to_be_stratified_is_said(make):
    images = found(make({"cat": 30, "dog": 30, "owl": 1}))
    assert_is_a_split(images)
    assert sizes(images)[2] == 19
    assert images.notes[0].endswith("not stratified: 1 of 3 classes have a single image")
    images = found(make({f"many/{index}": 2 for index in range(10)}) / "many")
    assert images.notes[0].endswith("not stratified: 6 of 20 images are too few for 10 classes")
    assert sizes(images) == [12, 2, 6]


def test_what_cannot_be_stratified_is_what_scikit_learn_refuses():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(600):
        labels = rng.integers(0, rng.integers(1, 9), rng.integers(2, 40))
        share = rng.choice([0.1, 1 / 7, 0.3])
        try:
            train_test_split(labels, test_size=share, stratify=labels)
            refused = False
        except ValueError:
            refused = True
        assert bool(_split_rules._obstacle(labels, share)) == refused
        seen.add(refused)
    assert seen == {True, False}


def test_images_without_class_folders_have_no_labels_and_are_calibration_and_test(make):
    images = found(make({".": 20, "notes": 0}))
    assert_is_a_split(images)
    assert sizes(images) == [14, 0, 6] and images.classes == ()
    assert set(images.labels) == {-1} and images.title == "folder photos, 20 images without labels"
    assert images.notes[0].endswith("not stratified: they have no labels")


@pytest.mark.parametrize(("count", "wanted"), [(2, [1, 0, 1]), (3, [1, 1, 1]), (4, [1, 1, 2])])
def test_few_images_are_split_as_far_as_they_go(make, count, wanted):
    images = found(make({"cat": count}))
    assert sizes(images) == wanted
    assert_is_a_split(images)


# files


def test_files_are_sorted_by_their_path_and_others_are_ignored(make, tmp_path):
    root = make({"cat": 0, "cat-a": 0, ".hidden": 3, "__MACOSX": 0})
    for name in ("b.png", "a.JPG", "c.webp", "d.Jpeg", "e.JPEG", "Z.PNG", "f.WEBP"):
        (root / "cat" / name).touch()
    for name in (".a.png", "thumbs.db", "x.gif", "a.png.txt", "png", "labels.csv"):
        (root / "cat" / name).touch()
    (root / "cat-a" / "a.png").touch()
    (root / "readme.txt").touch()
    images = found(root)
    listed = [path.relative_to(root).as_posix() for path in images.files.paths]
    assert listed == sorted(listed)
    assert listed[0] == "cat-a/a.png"  # as text, not folder by folder
    assert [name.removeprefix("cat/") for name in listed[1:]] == [
        *("Z.PNG", "a.JPG", "b.png", "c.webp", "d.Jpeg", "e.JPEG", "f.WEBP")
    ]
    assert images.classes == ("__MACOSX", "cat", "cat-a")
    assert images.labels.tolist() == [2] + [1] * 7
    assert all(path.is_absolute() for path in images.files.paths)


def test_the_extensions_are_those_of_timm_and_webp():
    from timm.data.readers.img_extensions import IMG_EXTENSIONS

    assert set(image_folder.EXTENSIONS) == {*IMG_EXTENSIONS, ".webp"}


def test_links_are_followed(make, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.png").touch()
    (elsewhere / "blob").touch()
    root = make({"val/cat": 1, "train/cat": 1})
    (root / "val" / "dog").symlink_to(elsewhere, target_is_directory=True)
    (root / "val" / "cat" / "linked.png").symlink_to(elsewhere / "blob")
    images = found(root)
    assert names(images, images.test, root) == [
        "val/cat/0000.png",
        "val/cat/linked.png",
        "val/dog/1.png",
    ]
    assert images.classes == ("cat", "dog")


def test_a_link_that_leads_nowhere_is_not_passed_over(make):
    root = make({"val/cat": 1})
    (root / "val" / "cat" / "x.png").symlink_to(root / "gone.png")
    images = found(root)
    with pytest.raises(UserError, match=r"x.png cannot be read"):
        images.files.decode(1)


def test_a_folder_is_relative_to_the_data_folder(make, monkeypatch):
    root = make({"cat": 10})
    monkeypatch.setenv("SHRINKMARK_DATA", str(root.parent))
    assert found("photos").files == found(root).files
    monkeypatch.chdir(root.parent.parent)
    monkeypatch.setenv("SHRINKMARK_DATA", root.parent.name)
    assert found("photos").files == found(root).files


def test_what_is_not_read_is_said(make):
    root = make({"val/cat": 2, "val/dog": 0, "val/owl": 0, "val/cat/old": 3, "val": 1})
    images = found(root)
    assert sizes(images) == [0, 0, 2] and images.classes == ("cat", "dog", "owl")
    assert images.notes[3:] == (
        "class folders without images: val/dog, val/owl",
        "images beside class folders are not read: val/0000.png",
        "folders in class folders are not read: val/cat/old",
        "test has no images of 2 of 3 classes: dog, owl",
    )
    notes = found(make({f"val/z{index}": 0 for index in range(8)})).notes
    assert "class folders without images: val/dog, val/owl, val/z0, val/z1, val/z2 and 5 more" in (
        notes
    )


# classes


def listed(root, text, name="classes.txt"):
    (root / name).write_text(text)
    return name


def test_labels_come_from_the_list_and_not_from_the_folders(make):
    root = make({"train/dog": 20, "val/owl": 1, "val/cat": 1})
    images = found(root, classes=listed(root, "owl\n dog \r\nant\ncat\n\n"))
    assert images.classes == ("owl", "dog", "ant", "cat")
    assert images.labels[images.test].tolist() == [3, 0] and set(images.labels[images.train]) == {1}
    assert images.title == "folder photos, 22 images in 4 classes"
    assert "test has no images of 2 of 4 classes: dog, ant" in images.notes
    other = listed(root.parent, "\ufeffcat\ndog\nowl", "list.txt")
    assert found(root, classes=str(root.parent / other)).classes == ("cat", "dog", "owl")


def test_the_list_gives_the_labels_that_timm_gives(make):
    from timm.data import ImageDataset

    root = make({f"val/n{index}": 2 for index in range(12)})
    name = listed(root, "".join(f"n{index}\n" for index in range(20, -1, -1)))
    images = found(root, classes=name)
    theirs = ImageDataset(str(root / "val"), class_map=str(root / name)).reader.samples
    label_of = dict(zip(map(str, images.files.paths), images.labels.tolist(), strict=True))
    assert label_of == dict(theirs)


def test_an_order_that_timm_would_not_have_is_said(make):
    from timm.data import ImageDataset

    root = make({f"val/{index}": 1 for index in range(12)})
    images = found(root)
    assert images.classes[:3] == ("0", "1", "10")
    assert images.notes[3].startswith("classes are sorted as text, '10' where a model trained")
    theirs = ImageDataset(str(root / "val")).reader.class_to_idx
    assert list(theirs) == [str(index) for index in range(12)]
    name = listed(root, "\n".join(theirs))
    assert not any("sorted" in note for note in found(root, classes=name).notes)


def test_a_class_folder_that_the_list_lacks_is_one_line(make):
    root = make({"train/cat": 20, "train/dog": 1, "val/cat": 1, "val/owl": 1})
    name = listed(root, "n01440764\nn01443537\nowl\n")
    said = message(root, classes=name)
    assert said.startswith(
        "class folder 'train/cat' (and 1 more) is not in classes.txt, which has "
    )
    assert "3 lines like 'n01440764': name folders as in that list" in said
    name = listed(root, "cat\ndog\n")
    assert message(root, classes=name).startswith("class folder 'val/owl' is not in classes.txt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has nothing in line 1"),
        ("\n \n", "has nothing in line 1"),
        ("cat\n\ndog\n", "has nothing in line 2"),
        ("cat\ndog\nowl\ndog\n", "has 'dog' twice"),
    ],
)
def test_a_wrong_list_of_classes_is_one_line(make, text, said):
    root = make({"cat": 10})
    name = listed(root, text)
    assert message(root, classes=name).startswith(f"{root / name} {said}")


def test_a_list_of_classes_that_is_not_there_or_no_text_is_one_line(make):
    root = make({"cat": 10})
    assert message(root, classes="classes.txt").startswith(
        f"no list of classes {root / 'classes.txt'}: give a text file"
    )
    assert "no list of classes" in message(root, classes="cat")
    (root / "classes.pkl").write_bytes(b"\x80\x04\xff")
    assert "is not UTF-8 text" in message(root, classes="classes.pkl")


# what is wrong with the folder


def test_a_folder_that_is_not_there_is_one_line(make, monkeypatch):
    root = make({})
    assert message(root / "gone").startswith(f"no folder of images {root / 'gone'}: ")
    monkeypatch.setenv("SHRINKMARK_DATA", str(root.parent))
    assert f"{root.parent / 'phots'}" in message("phots") and "SHRINKMARK_DATA" in message("phots")
    monkeypatch.setenv("SHRINKMARK_DATA", str(root / "gone"))
    assert "SHRINKMARK_DATA names" in message("photos")


@pytest.mark.parametrize("counts", [{".": 0}, {"cat": 0}, {"val/cat": 0}, {"Train/cat": 2}])
def test_a_folder_without_images_is_one_line(make, counts):
    root = make(counts)
    assert message(root).startswith("no images (.png, .jpg, .jpeg, .webp) in ")


def test_a_split_whose_folder_has_no_images_is_one_line(make):
    root = make({"train/cat": 2, "val/cat": 0, "test/cat": 1})
    assert f"in {root / 'val'}: " in message(root)
    root = make({"more/train/cat": 0, "more/val/cat": 1}) / "more"
    assert f"in {root / 'train'}: " in message(root)


def test_a_folder_without_test_images_is_one_line(make):
    root = make({"train/cat": 10})
    assert message(root) == (
        f"{root} has no test images: add test/ or val/ beside train/, or name {root / 'train'} as "
        "the folder, to have that split"
    )
    assert found(root / "train").title == "folder train, 10 images in 1 classes"
    assert "beside more/" in message(make({"more/cat": 1}), validation="more")
    assert "a single one cannot be split" in message(make({"one/cat": 1}) / "one")


def test_a_validation_folder_that_is_not_there_is_one_line(make):
    root = make(THREE | {"nips17/cat": 1})
    assert "did you mean 'nips17'" in message(root, validation="nips18")
    assert "unknown validation folder" in message(root, validation="../photos/val")
    assert "validation is train/, the training split" in message(root, validation="train")


def test_a_folder_that_may_not_be_listed_is_one_line(make, monkeypatch):
    root = make({"cat": 1})

    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(image_folder.os, "scandir", refuse)
    assert message(root).startswith(f"cannot list {root}: Permission denied: ")


# broken images


# what is closed


def test_the_folder_of_the_test_images_is_closed(make):
    root = make(THREE)
    assert list(ImageFolder(str(root)).closed()) == [root / "test"]
    assert list(ImageFolder(str(root), validation="test").closed()) == [root / "val"]
    assert list(ImageFolder(str(root / "val")).closed()) == [root / "val"]


def test_what_links_lead_to_is_closed_too(make, tmp_path):
    root = make({"val/cat": 1, "train/cat": 1, "store/dog": 1, "val/empty": 0})
    (root / "blob").touch()
    (root / "val" / "dog").symlink_to(root / "store" / "dog", target_is_directory=True)
    (root / "val" / "cat" / "x.PNG").symlink_to(root / "blob")
    (root / "train" / "cat" / "y.png").symlink_to(root / "readable")
    (root / "val" / "usr").symlink_to("/usr", target_is_directory=True)
    resolved = root.resolve()
    assert set(ImageFolder(str(root)).closed()) == {
        root / "val",
        resolved / "store" / "dog",
        resolved / "blob",
    }


def test_of_a_folder_that_is_not_there_its_place_is_closed(make, monkeypatch):
    root = make({"train/cat": 1})
    assert list(ImageFolder(str(root)).closed()) == [root]
    assert list(ImageFolder(str(root / "gone")).closed()) == [root / "gone"]
    monkeypatch.setenv("SHRINKMARK_DATA", str(root / "gone"))
    assert list(ImageFolder("photos").closed()) == [Path("photos")]


# the real one


@pytest.mark.skipif(not REAL.is_dir() or not REAL.is_absolute(), reason="needs imagenet/")
def test_the_stand_in_for_imagenet_is_what_its_readme_says():
    folder = ImageFolder("imagenet", classes="classes.txt", validation="nips17")
    images = folder.found()
    assert sizes(images) == [512, 1000, 1300] and len(images.classes) == 1000
    assert images.title == "folder imagenet, 2,812 images in 1,000 classes"
    assert [len(set(images.labels[which])) for which in (images.test, images.validation)] == [
        725,
        430,
    ]
    assert len(set(images.labels[images.train])) == 512  # one image a class
    order = (REAL / "classes.txt").read_text().split()
    assert all(
        order[label] == path.parent.name
        for path, label in zip(images.files.paths, images.labels, strict=True)
    )
    assert list(folder.closed()) == [REAL / "val"]
    assert images.files.decode(int(images.test[0])).size == (227, 227)
