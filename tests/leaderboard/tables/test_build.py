"""Which files a build writes, keeps and removes, one track at a time."""

import shutil

import pytest

from leaderboard.records.errors import UserError
from leaderboard.records.outline import read_outline
from leaderboard.tables.build import build


def build_tracks(results, *tracks):
    """Build some tracks, or without a name all of them."""
    return build(results.root, "v1", tracks, results.readme, read_outline(results.params))


def sections(results):
    """Return the tracks in the digest."""
    lines = results.readme.read_text().splitlines()
    return [
        line.removeprefix("### ").removesuffix(", version v1")
        for line in lines
        if line.startswith("### ")
    ]


def forget_records(results, track):
    """Leave nothing of a track but its tables."""
    for path in results.folder(track).iterdir():
        if path != results.tables(track):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def two(filled):
    """Two tiers of one dataset with results, in the order cifar10_full, digits, and a
    third that was not run.
    """
    filled.write_params("cifar10_full", "digits", "cifar10_cpu")
    filled.write_dense_alone("cifar10_full")
    return filled


def test_a_track_has_its_tables_metrics_curves_and_digest_in_a_folder_of_its_own(filled):
    build_tracks(filled)
    assert {path.name for path in filled.tables().iterdir()} == {
        "cpu.csv",
        "cpu.md",
        "cpu.svg",
        "size.svg",
        "accuracy.svg",
        "metrics.json",
        "curves.csv",
        "tiers.csv",
        "areas.csv",
        "digest.md",
    }
    assert {path.name for path in filled.folder().iterdir()} == {
        "track.json",
        "points",
        "predictions",
        "costs",
        "latency",
        "tables",
    }
    assert [path.name for path in filled.folder().parent.iterdir()] == ["digits"]


def test_only_the_tracks_asked_for_are_built(two):
    assert build_tracks(two, "digits") == (two.tables() / "cpu.md",)
    assert not two.tables("cifar10_full").exists()
    assert sections(two) == ["digits"]


def test_all_tracks_with_results_are_built_by_default_and_others_skipped(two):
    assert build_tracks(two) == (two.tables("cifar10_full") / "cpu.md", two.tables() / "cpu.md")
    assert not two.tables("cifar10_cpu").exists()


def test_a_track_asked_for_twice_is_built_once(two):
    assert build_tracks(two, "digits", "digits") == (two.tables() / "cpu.md",)


def test_the_digest_has_every_track_built_so_far_in_the_order_of_params_and_unknown_ones_after(two):
    for track in ("zoo", "another"):
        two.write_dense_alone(track)
    for track in ("zoo", "digits", "another", "cifar10_full"):
        build_tracks(two, track)
    assert sections(two) == ["cifar10_full", "digits", "another", "zoo"]


def test_the_digest_begins_with_the_tracks_shown_first(two):
    two.write_params("digits", "cifar10_cpu", "cifar10_full", first=["cifar10_full", "digits"])
    build_tracks(two)
    assert sections(two) == ["cifar10_full", "digits"]


def test_building_one_track_does_not_need_the_records_of_another(two):
    build_tracks(two)
    before = two.readme.read_bytes()
    forget_records(two, "cifar10_full")
    build_tracks(two, "digits")
    assert two.readme.read_bytes() == before


def test_building_tracks_one_by_one_or_together_gives_the_same_files(two):
    build_tracks(two)
    together = {path: path.read_bytes() for path in [*two.root.rglob("tables/*.*"), two.readme]}
    assert {path.parent for path in together} == {
        two.tables(),
        two.tables("cifar10_full"),
        two.readme.parent,
    }
    for track in ("digits", "cifar10_full"):
        shutil.rmtree(two.tables(track))
    build_tracks(two, "digits")
    build_tracks(two, "cifar10_full")
    assert {
        path: path.read_bytes() for path in [*two.root.rglob("tables/*.*"), two.readme]
    } == together


def test_what_is_stale_in_the_folder_of_a_track_is_removed(two):
    two.write_latency("laptop")
    build_tracks(two)
    assert (two.tables() / "laptop.csv").is_file() and "digits/laptop.md" in two.readme.read_text()
    two.latency("laptop").unlink()
    (two.tables("cifar10_full") / "note.txt").touch()
    build_tracks(two, "digits")
    assert not list(two.tables().glob("laptop.*")) and "laptop" not in two.readme.read_text()
    assert (two.tables("cifar10_full") / "note.txt").exists()  # of a track that was not built


def test_every_link_of_the_digest_is_a_page_that_exists(two):
    two.write_latency("laptop")
    build_tracks(two)
    links = [part.partition(")")[0] for part in two.readme.read_text().split("](")[1:]]
    assert len(links) == 3 and all((two.readme.parent / link).is_file() for link in links)


def test_tracks_that_do_not_validate_leave_every_table_as_it_was(two):
    (two.folder() / "track.json").write_text("{}")
    with pytest.raises(UserError):
        build_tracks(two)
    assert not two.tables("cifar10_full").exists()
