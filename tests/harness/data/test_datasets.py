"""Datasets: found in one of two layouts or downloaded, checked to the last image, named
by what they are, and split once and for all.
"""

import hashlib
import io
import os
import pickle
import shutil
import socket
import tarfile
from functools import partial
from http.client import IncompleteRead
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import URLError

import numpy as np
import platformdirs
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from harness import data
from harness.data import _cifar10_files, cifar10
from harness.data._cifar10_files import CIFAR10
from leaderboard.records.errors import UserError

COUNTS = {"train": 100, "test": 20}
REAL = os.environ.get("SHRINKMARK_DATA", "")


def sha256(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def index_hash(indices):
    return sha256(indices.astype("<i8"))


def per_class(source, which):
    return np.bincount(source.labels[which], minlength=10).tolist()


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels_of(split):
    """Random images (N, 32, 32, 3) and balanced, shuffled labels (N,) of a small
    CIFAR-10.
    """
    rng = np.random.default_rng(list(COUNTS).index(split))
    return rng.integers(0, 256, (COUNTS[split], 32, 32, 3), np.uint8), rng.permutation(
        np.arange(COUNTS[split]) % 10
    )


def table_of(split):
    images, labels = pixels_of(split)
    rows = [{"bytes": png(image), "path": f"{row}.png"} for row, image in enumerate(images)]
    return pyarrow.table({"img": rows, "label": labels})


def write(table, path):
    """Write `table` to `path` and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


def message():
    """Load CIFAR-10, which must fail with one line, and return the line."""
    with pytest.raises(UserError) as caught:
        data.dataset("cifar10").load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder that SHRINKMARK_DATA names, for a CIFAR-10 of 100 + 20 images;
    nothing can be downloaded into it.
    """
    monkeypatch.setattr(_cifar10_files, "COUNTS", COUNTS)
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:1/cifar-10-python.tar.gz")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("SHRINKMARK_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture(params=["cifar10", "cifar10/plain_text"])
def either_place(folder, request):
    """The folder of the shards, in both places where they may lie."""
    return folder / request.param


@pytest.fixture
def shards(folder):
    """A CIFAR-10 of two train shards and one test shard; returns their paths."""
    train = table_of("train")
    paths = [
        write(
            train.slice(50 * index, 50), folder / "cifar10" / f"train-0000{index}-of-00002.parquet"
        )
        for index in (0, 1)
    ]
    return [*paths, write(table_of("test"), folder / "cifar10" / "test-00000-of-00001.parquet")]


@pytest.fixture
def archive(folder, tmp_path_factory, monkeypatch):
    """A small archive in the original layout, unpacked outside of `folder`, whose md5
    sums torchvision is told; returns its folder.
    """
    place = tmp_path_factory.mktemp("archive") / CIFAR10.base_folder
    place.mkdir()

    def dump(name, content):
        (place / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((place / name).read_bytes()).hexdigest()

    def batch(name, images, labels):
        return [
            name,
            dump(
                name,
                {
                    "data": images.transpose(0, 3, 1, 2).reshape(len(images), -1),
                    "labels": labels.tolist(),
                },
            ),
        ]

    images, labels = pixels_of("train")
    batches = [
        batch(f"data_batch_{index + 1}", images[20 * index :][:20], labels[20 * index :][:20])
        for index in range(5)
    ]
    monkeypatch.setattr(CIFAR10, "train_list", batches)
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch", *pixels_of("test"))])
    meta = {
        "filename": "batches.meta",
        "key": "label_names",
        "md5": dump("batches.meta", {"label_names": list("abcdefghij")}),
    }
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return place


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def remote(archive, monkeypatch):
    """The archive packed, behind an address on this machine that torchvision downloads
    from; returns the packed file.
    """
    packed = archive.parent / "remote.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(archive, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(packed.read_bytes()).hexdigest())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=packed.parent)) as server:
        # seconds until it notices its end
        Thread(target=server.serve_forever, args=(0.01,)).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{packed.name}")
        yield packed
        server.shutdown()


def assert_is_the_small_one(source):
    (images, labels), (test_images, test_labels) = pixels_of("train"), pixels_of("test")
    assert (
        source.images.shape == (120, 3, 32, 32)
        and source.images.dtype == np.uint8
        and source.images.flags.c_contiguous
    )
    assert np.array_equal(source.images[:100].transpose(0, 2, 3, 1), images) and np.array_equal(
        source.images[100:, 1], test_images[..., 1]
    )
    assert source.labels.dtype == np.int64 and source.labels.tolist() == [*labels, *test_labels]
    raw = {"train images": images, "train labels": labels.astype(np.uint8)}
    raw |= {"test images": test_images, "test labels": test_labels.astype(np.uint8)}
    assert source.sha256 == {name: sha256(array) for name, array in raw.items()}
    assert source.test.tolist() == list(range(100, 120))
    assert sorted([*source.train, *source.validation]) == list(range(100))
    assert (
        per_class(source, source.train) == [9] * 10
        and per_class(source, source.validation) == [1] * 10
    )


# digits


def test_digits_are_cut_into_disjoint_stratified_parts_of_60_10_30_percent():
    source = data.dataset("digits").load()
    assert source.title == "scikit-learn digits (UCI, 1,797 images of 8x8)"
    assert [len(part) for part in (source.train, source.validation, source.test)] == [
        1077,
        180,
        540,
    ]
    assert sorted([*source.train, *source.validation, *source.test]) == list(range(1797))
    assert all(
        abs(count - 0.3 * whole) < 1
        for count, whole in zip(
            per_class(source, source.test), np.bincount(source.labels), strict=True
        )
    )
    assert all(
        abs(count - 0.1 * whole) < 1
        for count, whole in zip(
            per_class(source, source.validation), np.bincount(source.labels), strict=True
        )
    )


def test_the_split_of_digits_is_the_one_of_version_1_in_its_order():
    source = data.dataset("digits").load()
    assert [index_hash(part) for part in (source.train, source.validation, source.test)] == [
        "7c2c00ed818a49d00dcd9609c3487410f74757b8b28c23c894bf089a835086b5",
        "db9bff15b4e7f9f4a009480fc2ef662ef2882a98d27ed26ccf29c0383f282213",
        "e25705fe46e85216cd01fb88cac549c1524c5759f5772101aff051aabca2b9b4",
    ]


def test_digits_are_float32_in_0_to_1_and_known_by_the_hash_of_their_pixels():
    source = data.dataset("digits").load()
    assert (
        source.images.shape == (1797, 1, 8, 8)
        and source.images.dtype == np.float32
        and source.labels.dtype == np.int64
    )
    assert source.images.min() == 0 and source.images.max() == 1
    raw = {
        "images": (source.images[:, 0] * 16).astype(np.uint8),
        "labels": source.labels.astype(np.uint8),
    }
    assert source.sha256 == {name: sha256(array) for name, array in raw.items()}
    assert (
        source.sha256["images"]
        == "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    )


def test_unknown_names_get_the_nearest():
    with pytest.raises(UserError, match="unknown dataset 'cifar': did you mean 'cifar10'"):
        data.dataset("cifar")


# where CIFAR-10 is looked for


def test_parquet_shards_are_read_from_both_places_in_their_order(either_place):
    train = table_of("train")
    for index, rows in enumerate([train.slice(0, 30), train.slice(30, 30), train.slice(60)]):
        write(rows, either_place / f"train-0000{index}-of-00003.parquet")
    write(table_of("test"), either_place / "test-00000-of-00001.parquet")
    source = data.dataset("cifar10").load()
    assert_is_the_small_one(source)
    assert source.title == "CIFAR-10 (parquet copy)"


def test_the_unpacked_archive_is_read_and_preferred_to_shards(folder, archive, shards):
    shutil.copytree(archive, folder / CIFAR10.base_folder)
    for path in shards:
        path.write_bytes(b"not looked at")
    source = data.dataset("cifar10").load()
    assert_is_the_small_one(source)
    assert source.title == "CIFAR-10 (original archive)"


def test_the_users_cache_is_where_to_look_without_the_variable(shards, folder, monkeypatch):
    monkeypatch.delenv("SHRINKMARK_DATA")
    monkeypatch.setattr(
        platformdirs, "user_cache_path", lambda name: folder if name == "shrinkmark" else None
    )
    assert_is_the_small_one(data.dataset("cifar10").load())
    monkeypatch.setenv("SHRINKMARK_DATA", "")
    assert_is_the_small_one(data.dataset("cifar10").load())


def test_the_split_is_the_same_every_time_and_changes_with_the_seed(shards, monkeypatch):
    first, again = data.dataset("cifar10").load(), data.dataset("cifar10").load()
    assert index_hash(first.train) == index_hash(again.train) and index_hash(
        first.validation
    ) == index_hash(again.validation)
    assert (
        index_hash(first.validation)
        == "2a7542f7250da63dad09a13fe82a98538270e0e86a6882bc9248ff35acb16fff"
    )
    monkeypatch.setattr(cifar10, "SPLIT_SEED", 1)
    assert set(data.dataset("cifar10").load().validation) != set(first.validation)


def test_a_reconstruction_says_how_many_images_are_not_original(shards):
    for path, count in zip(shards, (2, 0, 3), strict=True):
        table = parquet.read_table(path)
        write(
            table.append_column(
                "original", pyarrow.array([row >= count for row in range(len(table))])
            ),
            path,
        )
    assert data.dataset("cifar10").load().title == "CIFAR-10 (reconstruction, 5 images from JPEG)"


def test_a_copy_whose_images_are_all_original_is_no_reconstruction(shards):
    for path in shards:
        table = parquet.read_table(path)
        write(table.append_column("original", pyarrow.array([True] * len(table))), path)
    assert data.dataset("cifar10").load().title == "CIFAR-10 (parquet copy)"


# what is wrong with it


def test_a_folder_that_does_not_exist_is_refused_and_not_created(folder, monkeypatch, capsys):
    monkeypatch.setenv("SHRINKMARK_DATA", str(folder / "misspelt"))
    assert "SHRINKMARK_DATA" in message() and str(folder / "misspelt") in message()
    assert not (folder / "misspelt").exists() and "downloaded" not in capsys.readouterr().err
    (folder / "misspelt").write_text("a file")
    assert "which is not a folder" in message()


def test_a_damaged_archive_is_refused_with_what_to_do(folder, archive):
    place = folder / CIFAR10.base_folder
    for name in ("data_batch_3", "test_batch", "batches.meta"):
        shutil.copytree(archive, place, dirs_exist_ok=True)
        (place / name).write_bytes((place / name).read_bytes()[:-1])
        assert (
            str(place) in message()
            and "incomplete or damaged" in message()
            and "delete this folder" in message()
        )
    (place / "batches.meta").unlink()
    assert "incomplete or damaged" in message()


@pytest.mark.parametrize("which", range(3))
def test_a_missing_shard_is_named(shards, which):
    shards[which].unlink()
    assert (
        str(shards[which]) in message()
        and "is missing" in message()
        and "put it there" in message()
    )


def test_a_shard_of_another_numbering_is_named(shards):
    extra = shutil.copy(shards[1], shards[1].with_name("train-00000-of-00001.parquet"))
    assert f"{extra} is not one of the 2 shards of train: remove it" in message()
    Path(extra).unlink()
    odd = shutil.copy(shards[2], shards[2].with_name("test-old.parquet"))
    assert f"{odd} is not one of the 1 shards of test" in message()


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_truncated_shard_is_named(shards, keep):
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[: int(keep * len(content))])
    assert f"{shards[1]} cannot be read" in message() and "replace it by" in message()


def bytes_column(values):
    return pyarrow.array([{"bytes": value, "path": "a.png"} for value in values])


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("img", None, "has no binary column img.bytes"),
        ("img", pyarrow.array([b"png"] * 50), "has no binary column img.bytes"),
        ("img", bytes_column(["text"] * 50), "has no binary column img.bytes"),
        ("label", None, "has no integer column label"),
        (
            "label",
            pyarrow.array(["cat"] * 50),
            "has no integer column label (found img.bytes: binary, img.path: string, label: "
            "string)",
        ),
        ("original", pyarrow.array([1] * 50), "has no boolean column original"),
    ],
)
def test_a_wrong_column_is_named(shards, column, values, expected):
    table = parquet.read_table(shards[1])
    table = table.drop_columns([column]) if column in table.column_names else table
    write(table if values is None else table.append_column(column, values), shards[1])
    assert f"{shards[1]} {expected}" in message()


GREY, SMALL, CLEAR = (np.zeros(shape, np.uint8) for shape in ((32, 32), (32, 31, 3), (32, 32, 4)))
JPEG = io.BytesIO()
Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(JPEG, "JPEG")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (png(GREY), "has an image of 32x32 L in row 49 instead of 32x32 RGB"),
        (png(SMALL), "has an image of 31x32 RGB in row 49 instead of 32x32 RGB"),
        (png(CLEAR), "has an image of 32x32 RGBA in row 49 instead of 32x32 RGB"),
        (png(pixels_of("test")[0][0])[:500], "has no PNG that can be decoded in row 49"),
        (JPEG.getvalue(), "has no PNG that can be decoded in row 49"),
        (None, "has no PNG that can be decoded in row 49"),
    ],
)
def test_an_image_that_is_no_32x32_rgb_png_is_named(shards, value, expected):
    table = parquet.read_table(shards[1])
    values = [row["bytes"] for row in table["img"].to_pylist()[:49]] + [value]
    write(table.set_column(0, "img", bytes_column(values)), shards[1])
    assert f"{shards[1]} {expected}" in message()


@pytest.mark.parametrize("label", [-1, 10, 256, None])
def test_a_label_outside_0_to_9_is_named(shards, label):
    table = parquet.read_table(shards[0])
    labels = pyarrow.array([*table["label"].to_pylist()[:-1], label])
    write(table.set_column(1, "label", labels), shards[0])
    assert (
        f"{shards[0]} has the label" in message()
        and "in row 49 instead of one in 0..9" in message()
    )


@pytest.mark.parametrize(
    ("which", "files"),
    [
        (1, "train-*.parquet hold 99 images instead of 100"),
        (2, "test-*.parquet hold 19 images instead of 20"),
    ],
)
def test_too_few_images_are_counted(shards, which, files):
    table = parquet.read_table(shards[which])
    write(table.slice(1), shards[which])
    assert files in message()


# downloading it


def test_without_network_one_line_says_what_to_put_where(folder, capsys):
    line = message()
    assert f"CIFAR-10 not found in {folder}" in line and "URLError" in line and "refused" in line
    assert (
        "cifar-10-batches-py/" in line and "cifar10/*.parquet" in line and "SHRINKMARK_DATA" in line
    )
    assert capsys.readouterr().err == ""


def test_without_the_variable_the_line_names_the_users_cache(folder, monkeypatch):
    monkeypatch.delenv("SHRINKMARK_DATA")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: folder / "cache" / name)
    assert (
        f"CIFAR-10 not found in {folder / 'cache' / 'shrinkmark'} and not downloaded" in message()
    )


@pytest.fixture
def silence():
    """How long this process lets sockets be silent, in seconds, other than usual."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(7.0)
    yield 7.0
    socket.setdefaulttimeout(before)


@pytest.mark.parametrize(
    "error",
    [
        URLError("no\nroute"),
        IncompleteRead(b""),
        TimeoutError("timed out"),
        RuntimeError("corrupted."),
    ],
)
def test_a_download_fails_in_one_line_and_after_a_limited_silence(
    folder, silence, monkeypatch, error
):
    seen = []

    def download(self):
        seen.append(socket.getdefaulttimeout())
        raise error

    monkeypatch.setattr(CIFAR10, "download", download)
    assert type(error).__name__ in message()
    assert seen == [_cifar10_files.TIMEOUT] and socket.getdefaulttimeout() == silence


def test_what_was_downloaded_is_read_and_found_the_next_time(folder, remote):
    source = data.dataset("cifar10").load()
    assert_is_the_small_one(source)
    assert source.title == "CIFAR-10 (original archive)"
    remote.unlink()
    assert_is_the_small_one(data.dataset("cifar10").load())


def test_half_a_download_does_not_count_as_found(folder, remote):
    whole = remote.read_bytes()
    remote.write_bytes(whole[: len(whole) // 2])
    assert "not downloaded (RuntimeError: File not found or corrupted.)" in message()
    assert (folder / CIFAR10.filename).exists() and not (folder / CIFAR10.base_folder).exists()
    remote.write_bytes(whole)
    assert_is_the_small_one(data.dataset("cifar10").load())


def test_half_an_unpacked_download_does_not_count_as_found(folder, remote):
    data.dataset("cifar10").load()
    (folder / CIFAR10.base_folder / "test_batch").unlink()
    assert "incomplete or damaged" in message()
    shutil.rmtree(folder / CIFAR10.base_folder)
    assert_is_the_small_one(data.dataset("cifar10").load())


# the real images


@pytest.fixture(scope="module")
def real():
    """The real CIFAR-10, if the environment names a folder that has its shards."""
    if not REAL or not any(
        any((Path(REAL) / place).glob("train-*.parquet"))
        for place in ("cifar10", "cifar10/plain_text")
    ):
        pytest.skip("SHRINKMARK_DATA names no folder with cifar10/train-*.parquet")
    return data.dataset("cifar10").load()


def test_the_real_images_are_those_whose_hashes_are_published(real):
    if "reconstruction" not in real.title:
        pytest.skip(f"the hashes are those of the reconstruction, and this is {real.title}")
    assert real.title == "CIFAR-10 (reconstruction, 109 images from JPEG)"
    assert real.sha256 == {
        "train images": "a18ec1384dc5d809e0d73440086ff118438410f1c69d02fae1db07327c5f9a40",
        "train labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "test images": "4674ac8c77f372061aaf9216c8857c99599d5df0bb9f6b16a3de613ef8eb348a",
        "test labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    }


def test_the_real_split_has_4500_500_and_1000_images_of_each_class(real):
    assert per_class(real, real.train) == [4500] * 10
    assert per_class(real, real.validation) == [500] * 10
    assert per_class(real, real.test) == [1000] * 10 and real.test.tolist() == list(
        range(50_000, 60_000)
    )
    assert sorted([*real.train, *real.validation]) == list(range(50_000))


def test_the_real_split_is_the_one_of_this_version(real):
    assert [index_hash(part) for part in (real.train, real.validation)] == [
        "41f7c9cdc110bd43b4ad6cb868215685baf33b4fedc08b23d02981d4c3990fe3",
        "bd22f4f901ffd95702be570206fb098b808791b531516e955766b0b470342fc8",
    ]


def test_the_real_images_have_the_published_mean_and_deviation(real):
    pixels = real.images[:50_000].transpose(1, 0, 2, 3).reshape(3, -1)
    np.testing.assert_allclose(pixels.mean(1) / 255, [0.4914, 0.4822, 0.4465], atol=1e-4)
    np.testing.assert_allclose(
        [channel.std() / 255 for channel in pixels], [0.2470, 0.2435, 0.2616], atol=1e-4
    )
