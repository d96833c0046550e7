"""What tools/reproducible.py calls the same; the tool itself takes minutes and is part
of `make soak`.
"""

import pytest
import typer

from tools import reproducible


def test_a_file_that_differs_is_named_and_ends_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        reproducible.kill, "outcome", lambda folder: {"tables/a.csv": "1", "points/b.json": "2"}
    )
    reproducible.same("another clone", tmp_path, {"tables/a.csv": "1", "points/b.json": "2"})
    assert capsys.readouterr().out == "ok: another clone: 2 files the same, byte for byte\n"
    with pytest.raises(
        SystemExit, match=r"error: another clone: 2 of 2 files differ: points/b.json, predictions/c"
    ):
        reproducible.same("another clone", tmp_path, {"tables/a.csv": "1", "predictions/c": "2"})


def test_the_experiment_is_a_clean_clone_of_few_points_that_times_nothing(tmp_path):
    folder = reproducible.experiment(tmp_path / "clone", 1)
    params = reproducible.load_params(folder / "params.yaml")
    assert (
        params.run.workers == 1
        and not params.hardware
        and set(reproducible.METHODS) < set(params.methods)
    )
    assert (folder / "harness" / "run" / "code" / "rules.py").exists() and not (
        folder / "results"
    ).exists()


def test_an_interpreter_that_is_not_there_is_one_line():
    with pytest.raises(typer.BadParameter, match="no Python called 'python3000'"):
        reproducible.main(python="python3000")
