"""Methods of other packages are held to the rules on their text before they are
imported: a line, a failed row, and neighbours that run.
"""

import sys

import pytest
import typer
import yaml

from harness.cli.check import check_params
from harness.run import fingerprint, registry
from harness.run.code import foreign_methods as others
from harness.run.code.rules import CODE, IMPORT
from harness.run.compress import compress
from leaderboard.records import files

LINES = {
    "outside_opens_files": "method 'outside_opens_files' is refused: outside_methods/opens_files.py line 3: "
    f"importlib: {IMPORT} (1 more)",
    "outside_by_a_part": f"method 'outside_by_a_part' is refused: outside_methods/part.py line 3: time: {IMPORT}",
}


def test_a_method_whose_text_breaks_the_rules_is_a_failed_row_that_names_file_line_and_rule_and_its_neighbour_runs(
    small, with_methods
):
    _, paths = small
    done = compress(
        with_methods(
            {"outside_scale": [{"factor": 0.75}], **{name: [{"any": 1}] for name in LINES}}
        ),
        paths,
        "digits",
    )
    assert done.failed == 2
    for name, line in LINES.items():
        (record,) = files.read_json(paths.points("digits", name))["points"]
        assert (record["status"], record["reason"]) == ("failed", line)
        assert (
            others.refusal.__wrapped__(name, f"outside_methods.{name.removeprefix('outside_')}")
            == line
        )
    (record,) = files.read_json(paths.points("digits", "outside_scale"))["points"]
    assert (
        record["status"] == "ok"
        and "outside_methods.opens_files" not in sys.modules
        and "outside_methods.part" not in sys.modules
    )


def test_a_chain_with_a_refused_step_is_refused(outside):
    assert list(registry.refusals(["rtn", "rtn__outside_opens_files", "outside_scale"])) == [
        LINES["outside_opens_files"]
    ]


def test_params_that_name_a_refused_method_are_told_so(small, with_methods, tmp_path, capsys):
    file = tmp_path / "params.yaml"
    file.write_text(
        yaml.safe_dump(
            with_methods({name: [{}] for name in ("dense", *LINES)}).model_dump(), sort_keys=False
        )
    )
    with pytest.raises(typer.Exit) as ended:
        check_params(file)
    assert ended.value.exit_code == 1 and capsys.readouterr().err == "".join(
        f"error: {line}\n" for line in LINES.values()
    )


def test_a_file_of_methods_that_hands_on_a_class_from_elsewhere_is_held_to_the_same(
    outside, tmp_path, monkeypatch
):
    monkeypatch.setattr(registry.methods, "__path__", [str(tmp_path), *registry.methods.__path__])
    (tmp_path / "handed_on.py").write_text(
        "from outside_methods.works import OutsideScale as OutsideScale\n"
    )
    (tmp_path / "handed_on_too.py").write_text(
        "from outside_methods.by_a_part import ByAPart as ByAPart\n"
    )
    assert registry.load("handed_on").family == "outside"
    assert list(registry.refusals(["handed_on_too"])) == [
        LINES["outside_by_a_part"].replace("outside_by_a_part", "handed_on_too")
    ]


def test_all_files_of_its_package_that_a_method_imports_decide_its_points(outside):
    assert {"outside_methods", "outside_methods.works", "methods"} <= fingerprint.files_of(
        "outside_scale"
    ).keys()
    assert {
        "methods.rtn",
        "methods.parts.quantization.quantize",
        "methods",
    } <= fingerprint.files_of("rtn").keys()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a package of the given files, which nobody imports; return its name."""

    def write(**texts):
        folder = tmp_path / tmp_path.name
        folder.mkdir()
        for name, text in {"__init__": "", **texts}.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        return folder.name

    return write


def test_all_that_importing_a_method_runs_of_its_package_is_read_and_nothing_else_of_it(package):
    name = package(
        __init__="from . import first",
        first="from .second import f",
        second="",
        unused="import os",
        entry="import torch",
    )
    assert [part.name for part in others.parts(f"{name}.entry")] == [
        f"{name}/{file}.py" for file in ("__init__", "entry", "first", "second")
    ]
    assert others.refusal("x", f"{name}.entry") is None


def test_a_package_that_opens_a_file_as_it_is_imported_is_refused(package):
    name = package(__init__="\nopen('x')", entry="")
    assert (
        others.refusal("x", f"{name}.entry")
        == f"method 'x' is refused: {name}/__init__.py line 2: open: {CODE}"
    )


def test_a_part_that_is_no_text_is_refused(package, tmp_path):
    name = package(entry="from . import compiled")
    (tmp_path / name / "compiled.abi3.so").write_bytes(b"")
    assert others.refusal("x", f"{name}.entry") == (
        f"method 'x' is refused: {name}/compiled.abi3.so line 1: compiled.abi3.so: "
        f"{others.COMPILED}"
    )
