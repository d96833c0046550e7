"""A stranger's file: every trick ends in one line, with nothing written and nothing
run.
"""

import json
import stat

import pytest

from leaderboard.exchange import bundle as reading
from tests.leaderboard.exchange.bundles import (
    RECORDS,
    assert_refused,
    entries,
    packed,
    run,
    tree,
    with_entry,
    write,
)


@pytest.fixture
def bundle(filled, params, tmp_path):
    """The filled results as a bundle."""
    return packed(filled, params, tmp_path / "theirs.zip")


def assert_nothing_gives(filled, bundle, *words):
    """Assert that check-bundle and merge refuse the bundle with one line and leave
    everything as it was.
    """
    before = tree(bundle.parent)
    for command in ("check bundle", "merge"):
        assert_refused(run(filled, command, bundle), *words)
    assert tree(bundle.parent) == before


def edit_manifest(bundle, **changed):
    files = entries(bundle)
    files["manifest.json"] = json.dumps(json.loads(files["manifest.json"]) | changed)
    write(bundle, files.items())


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../outside.json",
        f"{RECORDS}/points/../../../../x.json",
        "results\\v1\\x.json",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(filled, bundle, name):
    with_entry(bundle, name)
    assert_nothing_gives(filled, bundle, name.rsplit("/", 1)[-1][:8])


@pytest.mark.parametrize(
    "name",
    [
        "setup.py",
        f"{RECORDS}/points/x.pkl",
        f"{RECORDS}/predictions/x.npy",
        "results/v2/records/digits/track.json",
    ],
)
def test_a_file_that_bundles_do_not_hold_is_refused(filled, bundle, name):
    with_entry(bundle, name)
    assert_nothing_gives(
        filled, bundle, f"'{name}' has no place in a bundle of track 'digits', version 'v1'"
    )


def test_a_link_is_refused(filled, bundle):
    with_entry(bundle, f"{RECORDS}/points/x.json", b"/etc/passwd", stat.S_IFLNK | 0o777)
    assert_nothing_gives(filled, bundle, "points/x.json' is a link")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(filled, bundle):
    files = entries(bundle)
    write(bundle, [*files.items(), ("params.yaml", b"version: v1")])
    assert_nothing_gives(filled, bundle, "'params.yaml' twice")


def test_a_zip_bomb_is_refused(filled, bundle):
    with_entry(bundle, f"{RECORDS}/points/bomb.json", bytes(10_000_000))
    assert_nothing_gives(filled, bundle, "bomb.json' unpacks to more than 100 times its size")


@pytest.mark.parametrize(
    ("limit", "said"),
    [("MOST_FILES", "files, at most 3 are read"), ("MOST_BYTES", "bytes, at most 3 are read")],
)
def test_a_bundle_beyond_the_limits_is_refused(filled, bundle, monkeypatch, limit, said):
    monkeypatch.setattr(reading, limit, 3)
    assert_nothing_gives(filled, bundle, said)


def test_a_file_that_its_manifest_does_not_describe_is_refused(filled, bundle):
    files = entries(bundle)
    files[f"{RECORDS}/points/rtn.json"] += b" "
    write(bundle, files.items())
    assert_nothing_gives(
        filled, bundle, "points/rtn.json' is not the file that its manifest describes"
    )


def test_a_missing_file_is_refused(filled, bundle):
    files = entries(bundle)
    del files[f"{RECORDS}/points/rtn.json"]
    write(bundle, files.items())
    assert_nothing_gives(
        filled, bundle, "its manifest and its files disagree about", "points/rtn.json"
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"format": 3}, "format 3, this reads format 2"),
        ({"version": "../v1"}, "manifest.json: version"),
        ({"track": "other"}, "has no place in a bundle of track 'other'"),
        ({"machines": {"cpu": ["beef"]}}, "names other machines"),
        ({"files": 3}, "manifest.json: files"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused(filled, bundle, changed, said):
    edit_manifest(bundle, **changed)
    assert_nothing_gives(filled, bundle, said)


def test_a_bundle_of_version_2_is_named_as_such_whatever_its_manifest_holds(filled, bundle):
    content = {name: files for name, files in entries(bundle).items() if name != "manifest.json"}
    for rest in ({}, {"version": "v2", "track": "digits", "files": 3}):
        write(
            bundle,
            [
                ("manifest.json", json.dumps({"format": 1} | rest)),
                *content.items(),
                ("results/v2/records/digits/track.json", b"{}"),
            ],
        )
        assert_nothing_gives(
            filled,
            bundle,
            "theirs.zip is a bundle of format 1, this reads format 2: use the shrinkmark that it "
            "was made with",
        )


@pytest.mark.parametrize(
    "name", ["costs/beef.json", "costs/not a hash.json", "costs/cpu/beef.json"]
)
def test_costs_lie_at_one_place_and_are_described(filled, bundle, name):
    write(bundle, [*entries(bundle).items(), (f"{RECORDS}/{name}", b"{}")])
    assert_nothing_gives(
        filled,
        bundle,
        "its manifest and its files disagree about"
        if name == "costs/beef.json"
        else "has no place in a bundle",
    )


def test_a_zip_without_a_manifest_is_refused(filled, bundle):
    write(bundle, [("params.yaml", b"")])
    assert_nothing_gives(filled, bundle, "no manifest.json")


def test_what_is_no_zip_is_refused(filled, bundle):
    bundle.write_bytes(bundle.read_bytes()[:1000])
    assert_nothing_gives(filled, bundle, "no whole zip file")


def test_a_bit_that_flipped_on_the_way_is_refused(filled, bundle):
    content = bytearray(bundle.read_bytes())
    content[len(content) // 3] ^= 1
    bundle.write_bytes(content)
    assert_nothing_gives(filled, bundle, "theirs.zip is refused")


def test_a_bundle_that_is_not_there_is_one_line(filled, tmp_path):
    assert_refused(run(filled, "check bundle", tmp_path / "none.zip"), "cannot read", "none.zip")
