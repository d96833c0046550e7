"""What DVC's files promise beyond one track's own pipeline: whose results are made into
README, docs/results.md and the site, and what the default pipeline leaves alone.
"""

import pytest
import yaml

from leaderboard.records.params import load_params
from tests.conftest import ROOT

RECORDS = ("track.json", "points", "predictions", "costs", "latency")
TRACKS = sorted(path.parent.name for path in (ROOT / "tracks").glob("*/dvc.yaml"))


def stages(path):
    """Return the stages of a dvc.yaml."""
    return yaml.safe_load((ROOT / path).read_text())["stages"]


@pytest.mark.parametrize("track", TRACKS)
def test_the_results_of_a_track_are_made_into_pages_and_site_by_its_own_pipeline(track):
    own, home = stages(f"tracks/{track}/dvc.yaml"), f"results/${{version}}/{track}"
    board, site = own["leaderboard"], own["site"]
    assert board["cmd"] == f"python -m shrinkmark tables {track}"
    assert {*(f"{home}/{name}" for name in RECORDS), "leaderboard"} <= set(board["deps"])
    assert [next(iter(out)) for out in board["outs"]] == [f"{home}/tables"]
    assert site["cmd"] == "python -m shrinkmark site" and site["deps"] == [f"{home}/tables"]


def test_the_default_pipeline_depends_on_no_other_track_and_on_the_order_of_all():
    text = (ROOT / "dvc.yaml").read_text()
    assert TRACKS and not [track for track in TRACKS if track in text]
    assert "shown_first" in stages("dvc.yaml")["site"]["params"]
    assert "params.yaml" in stages("dvc.yaml")["leaderboard"]["deps"]


def test_the_tracks_shown_first_are_tracks():
    params = load_params(ROOT / "params.yaml")
    assert params.shown_first and set(params.shown_first) <= set(params.tracks)


def test_check_results_compares_every_page_that_tables_writes():
    (line,) = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if "git diff --exit" in line
    ]
    assert {"results", "docs", "README.md"} <= set(line.split())
