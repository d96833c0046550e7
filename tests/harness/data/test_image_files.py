"""Images that stay files: decoded as timm decodes them, told apart from what is none,
and hashed once.
"""

import hashlib
import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

import methods  # noqa: F401  (before torchvision: see methods/parts/torchvision.py)
from harness.data import image_files
from harness.data.image_files import BrokenImage, ImageFiles, content
from leaderboard.records.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (19, 23, 4), np.uint8)
RGB = Image.fromarray(np.ascontiguousarray(PIXELS[..., :3]))
RGBA = Image.fromarray(PIXELS)
PALETTE = RGB.quantize(16)


def turned():
    """An EXIF block that says the picture lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


SAVED = {  # by file name: an image and how it is saved
    "1.png": (RGB.convert("1"), {}),
    "L.png": (RGB.convert("L"), {}),
    "L_transparent.png": (RGB.convert("L"), {"transparency": 7}),
    "LA.png": (RGBA.convert("LA"), {}),
    "P.png": (PALETTE, {}),
    "P_two_colours.png": (RGB.quantize(2), {"bits": 1}),
    "P_transparent.png": (PALETTE, {"transparency": 3}),
    "P_alpha.png": (PALETTE, {"transparency": bytes(range(0, 256, 16))}),
    "RGB.png": (RGB, {}),
    "RGB_transparent.png": (RGB, {"transparency": (1, 2, 3)}),
    "RGBA.png": (RGBA, {}),
    "I16.png": (Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), {}),
    "turned.png": (RGB, {"exif": turned()}),
    "RGB.jpg": (RGB, {}),
    "L.jpeg": (RGB.convert("L"), {}),
    "CMYK.JPEG": (RGB.convert("CMYK"), {}),
    "progressive.JPG": (RGB, {"progressive": True}),
    "turned.jpg": (RGB, {"exif": turned()}),
    "several.jpg": (RGB, {"format": "MPO", "save_all": True, "append_images": [RGB]}),
    "is_a_png.jpg": (RGBA, {"format": "PNG"}),
    "is_a_gif.png": (PALETTE, {"format": "GIF"}),
    "RGB.webp": (RGB, {}),
    "RGBA.WEBP": (RGBA, {"lossless": True}),
    "moving.webp": (RGB, {"save_all": True, "append_images": [RGB.rotate(180)]}),
    "turned.webp": (RGB, {"exif": turned()}),
}


def png_of_16_bits():
    """A PNG of 16 bits a channel, which PIL does not write."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    rows = np.random.default_rng(1).integers(0, 65536, (5, 7, 3)).astype(">u2")
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture
def folder(tmp_path):
    """A folder with an image of every kind."""
    for name, (image, options) in SAVED.items():
        image.save(tmp_path / name, **options)
    (tmp_path / "RGB16.png").write_bytes(png_of_16_bits())
    return tmp_path


def paths_in(folder):
    return tuple(sorted(path for path in folder.iterdir() if path.is_file()))


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_every_kind_of_image_is_what_timm_makes_of_it_pixel_by_pixel(folder):
    from timm.data import ImageDataset

    theirs = ImageDataset(str(folder), input_key=".png;.jpg;.jpeg;.webp")
    images = ImageFiles(tuple(map(type(folder), theirs.filenames(absolute=True))))
    assert set(images.paths) == set(paths_in(folder)) and len(theirs) == len(SAVED) + 1
    for index, path in enumerate(images.paths):
        own, other = images.decode(index), theirs[index][0]
        assert own.mode == other.mode == "RGB"
        assert np.array_equal(np.asarray(own), np.asarray(other)), path.name


def test_pixels_are_those_that_were_saved_and_no_picture_is_turned(folder):
    names = ("RGB.png", "turned.png", "turned.jpg", "turned.webp", "moving.webp", "several.jpg")
    images = ImageFiles(tuple(folder / name for name in names))
    assert all(images.decode(index).size == (23, 19) for index in range(len(names)))
    assert np.array_equal(np.asarray(images.decode(0)), PIXELS[..., :3])
    assert np.array_equal(np.asarray(images.decode(1)), PIXELS[..., :3])


def test_what_is_cut_off_is_not_filled_up():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


NO_IMAGES = {
    "text.jpg": b"not an image",
    "empty.png": b"",
    "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "page.jpeg": b"<!DOCTYPE html><html></html>",
    "beginning.webp": b"RIFF\x10\0\0\0WEBPVP8 ",
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_a_file_that_is_no_image_is_named_on_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(NO_IMAGES[name])
    with pytest.raises(BrokenImage) as caught:
        ImageFiles((tmp_path / name,)).decode(0)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / name} is no image or is cut off (")
    assert said.count(str(tmp_path)) == 1 and "--skip-broken (skip_broken: true)" in said
    assert "\n" not in said and isinstance(caught.value, UserError)


@pytest.mark.parametrize("name", ["RGB.png", "RGB.jpg", "progressive.JPG", "CMYK.JPEG", "RGB.webp"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_an_image_that_is_cut_off_is_broken(folder, name, keep):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(BrokenImage, match=f"{name} is no image or is cut off"):
        ImageFiles((folder / name,)).decode(0)


def test_whatever_the_decoder_raises_is_one_line(tmp_path, folder):
    rng = np.random.default_rng(0)
    for name in ("RGB.png", "P.png", "RGB.jpg", "RGB.webp", "is_a_gif.png"):
        whole = (folder / name).read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for place in rng.integers(0, min(len(whole), 90), 2):
                damaged[place] = rng.integers(256)
            (tmp_path / "damaged.png").write_bytes(damaged)
            try:
                ImageFiles((tmp_path / "damaged.png",)).decode(0)
            except BrokenImage as error:
                assert "\n" not in str(error)


def test_an_image_too_large_to_be_trusted_is_one_line(tmp_path, monkeypatch):
    RGB.save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(BrokenImage, match=r"exceeds limit of 20 pixels"):
        ImageFiles((tmp_path / "large.png",)).decode(0)


def test_no_thread_takes_a_rare_format_for_none_because_another_is_loading_it(
    tmp_path, monkeypatch
):
    """PIL registers WebP when it first meets one: a thread that comes in between finds
    it neither among the formats that it has tried nor among the new ones. So all are
    registered first, in the order in which timm has them.
    """
    RGB.save(tmp_path / "a.webp")
    called = []
    for name in ("preinit", "init", "open"):
        own = getattr(Image, name)
        monkeypatch.setattr(
            Image, name, lambda *args, own=own, name=name: (called.append(name), own(*args))[1]
        )
    ImageFiles((tmp_path / "a.webp",)).decode(0)
    assert called[:3] == ["preinit", "init", "open"]


# hashes


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are hashed, as they are."""
    seen = []
    hashing = image_files._sha256
    monkeypatch.setattr(
        image_files, "_sha256", lambda path: (seen.append(path.name), hashing(path))[1]
    )
    return seen


@pytest.fixture
def three(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def test_the_content_is_the_sha256_of_each_file_in_their_order(three, tmp_path, hashed):
    wanted = [hashlib.sha256(path.read_bytes()).hexdigest() for path in three]
    cache = tmp_path / "made" / "hashes.json"
    assert content([*three, three[0]], cache) == (*wanted, wanted[0])
    assert sorted(hashed) == ["a.png", "b.png", "c.png"]
    assert content(three[::-1], cache) == tuple(wanted[::-1]) and len(hashed) == 3
    assert [path.name for path in cache.parent.iterdir()] == ["hashes.json"]
    assert content([], cache) == ()


def test_a_file_that_has_changed_is_hashed_again_and_no_other(three, tmp_path, hashed):
    cache = tmp_path / "hashes.json"
    before = content(three, cache)
    three[0].write_bytes(b"longer than before")
    status = three[1].stat()
    os.utime(three[1], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    del hashed[:]
    after = content(three, cache)
    assert sorted(hashed) == ["a.png", "b.png"]
    assert after[0] != before[0] and after[1:] == before[1:]


def test_a_cache_serves_several_folders_and_is_not_written_without_need(three, tmp_path, hashed):
    cache = tmp_path / "hashes.json"
    content(three[:2], cache)
    content(three[2:], cache)
    written = cache.stat().st_mtime_ns, cache.stat().st_ino
    content(three, cache)
    assert len(hashed) == 3 and written == (cache.stat().st_mtime_ns, cache.stat().st_ino)


def test_what_is_hashed_before_an_interruption_is_remembered(three, tmp_path, monkeypatch):
    hashing = image_files._sha256

    def interrupted(path):
        if path.name == "c.png":
            raise KeyboardInterrupt
        return hashing(path)

    monkeypatch.setattr(image_files, "_sha256", interrupted)
    with pytest.raises(KeyboardInterrupt):
        content(three, tmp_path / "hashes.json")
    assert sorted(json.loads((tmp_path / "hashes.json").read_text())) == sorted(map(str, three[:2]))


def test_a_name_that_is_no_text_is_remembered_too(tmp_path, hashed):
    path = tmp_path / os.fsdecode(b"\xff\xfe.png")
    try:
        path.write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has names of text alone")
    assert content([path], tmp_path / "c.json") == content([path], tmp_path / "c.json")
    assert len(hashed) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": [1, 2]}', '{"a": ["x", 1, "y"]}'])
def test_a_damaged_cache_is_one_line(three, tmp_path, text):
    (tmp_path / "hashes.json").write_text(text)
    with pytest.raises(UserError, match=r"hashes.json .*: delete it and run its stage again"):
        content(three, tmp_path / "hashes.json")


def test_a_file_that_cannot_be_hashed_is_one_line(three, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"gone.png cannot be read: No such file or directory: "):
        content([*three, tmp_path / "gone.png"], tmp_path / "hashes.json")
    monkeypatch.setattr(image_files, "_stamp", lambda path: (1, 1))  # gone since
    with pytest.raises(UserError, match=r"gone.png cannot be read"):
        content([tmp_path / "gone.png"], tmp_path / "hashes.json")
