"""A run that is killed at any moment loses nothing, runs nothing twice and ends as if
it had not been; tools/kill_anywhere.py does it a hundred times.
"""

import random

import pytest

from tools import kill_anywhere as kill


@pytest.mark.slow
def test_a_run_killed_three_times_ends_as_one_that_was_not(tmp_path):
    generator, folders = (
        random.Random(0),
        [tmp_path / name for name in ("undisturbed", "disturbed")],
    )
    for folder in folders:
        folder.mkdir()
        kill.experiment(folder)
    kill.finish(folders[0], kill.ALONE)
    wanted = kill.outcome(folders[0])
    assert len(wanted) > 20 and any(name.endswith(".csv") for name in wanted)
    moments = [kill.Moment(0, 4.0, False), kill.Moment(3, 0.1, False), kill.Moment(3, 0.05, True)]
    assert kill.a_round(folders[1], kill.ALONE, moments, generator, wanted) >= 2


def test_a_point_that_was_run_again_is_noticed(tmp_path):
    record, note = (
        tmp_path / "artefacts" / "digits" / name
        for name in ("points/rtn/x_0.5/record.json", "spent/rtn/x_0.5.json")
    )
    for file in (record, note):
        file.parent.mkdir(parents=True)
    record.write_text('{"status": "ok"}')
    note.write_text('{"seconds": 1}')
    before = kill.finished(tmp_path)
    kill.unchanged(tmp_path, before)
    note.write_text('{"seconds": 2}')
    try:
        kill.unchanged(tmp_path, before)
    except AssertionError as error:
        assert "run again though finished" in str(error)
    else:
        raise AssertionError("not noticed")
