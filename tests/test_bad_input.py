"""Bad input of every kind ends with one line on stderr that names it, a non-zero exit,
no traceback, and not a byte changed.
"""

import shlex
import shutil
import sys

import pytest

import methods
from benchmarks.testbed.tiny_project import digest
from harness.cli.command import main
from tests.bad_input import command_cases, file_cases, params_cases

CASES = [*params_cases.CASES, *command_cases.CASES, *file_cases.CASES]


@pytest.fixture
def run(tiny_project, tmp_path, monkeypatch, capfd):
    """Damage a copy of the project and run a command in it, in this process; return
    exit code, stderr and whether a byte was changed.
    """

    def command(damage, line):
        root = tmp_path / "project"
        shutil.copytree(tiny_project, root)
        damage(root)
        before = digest(root)
        monkeypatch.chdir(root)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        if (root / "methods" / "broken.py").exists():
            monkeypatch.setattr(methods, "__path__", [str(root / "methods"), *methods.__path__])
        monkeypatch.delitem(sys.modules, "methods.broken", raising=False)
        monkeypatch.setattr(sys, "argv", ["shrinkmark", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capfd.readouterr().err, digest(root) != before

    return command


@pytest.mark.parametrize("line", ["check params", "check results", "tables", "show"])
def test_the_whole_project_is_refused_by_no_command(run, line):
    assert run(lambda root: None, line)[:2] == (0, "")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_line_and_changes_nothing(run, case):
    code, stderr, touched = run(case.damage, case.command)
    assert (
        (code == 2 or case.command.startswith("check"))
        and stderr.startswith("error: ")
        and stderr.count("\n") == 1
    ), stderr[-3000:]
    assert case.said in stderr and len(stderr) < 1000, stderr
    assert not touched
