"""The command line: help with examples, and one line with a non-zero exit for bad
input.
"""

import json
import os
import re
import subprocess
import sys
import tomllib

import pytest
import torch
import typer
from typer.testing import CliRunner

from harness.cli import new_method
from harness.cli.command import app, main
from harness.latency.measure import timed
from harness.run.compress import Summary
from harness.run.server.pool import workers
from leaderboard.records.errors import Interrupted, UserError
from leaderboard.records.params import load_params
from tests.conftest import ROOT

COMMANDS = [
    ["try"],
    ["train"],
    ["compress"],
    ["sweep"],
    ["measure"],
    ["run"],
    ["hardware"],
    ["export"],
    ["new"],
    ["macs"],
    ["methods"],
    ["bundle"],
    ["rerun"],
    ["check", "params"],
    ["check", "results"],
    ["check", "bundle"],
    ["tables"],
    ["show"],
    ["site"],
    ["recommend"],
    ["compare"],
    ["merge"],
    ["schema"],
]
VERSION_2 = {
    "harness": [
        *"train code compress commit measure run sweep hardware export new macs methods bundle "
        "verify".split(),
        "check params",
        "check results",
    ],
    "leaderboard": "build show recommend compare site verify merge schema".split(),
}


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "shrinkmark", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def run_here(capsys, monkeypatch):
    """Run a command in this process, which has imported torch already, from the root of
    the repository; return exit code, stdout and stderr.
    """

    def command(*arguments):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["shrinkmark", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return command


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_its_exit_codes(command):
    done = CliRunner().invoke(app, [*command, "--help"])
    assert (
        done.exit_code == 0
        and f"Example: shrinkmark {' '.join(command)}" in done.stdout
        and "Exit codes: 0 done; " in done.stdout
    )


def test_docs_name_every_command_and_what_it_was_called():
    root = typer.main.get_command(app)
    verbs = {name for name, command in root.commands.items() if not hasattr(command, "commands")}
    verbs |= {
        f"{group} {name}"
        for group, of in root.commands.items()
        for name in getattr(of, "commands", {})
    }
    rows = [
        line.split("|")[1:4]
        for line in (ROOT / "docs" / "commands.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    told = {re.match(r" `([a-z ]+[a-z])", command)[1]: former for command, _, former in rows}
    assert set(told) == verbs == {" ".join(command) for command in COMMANDS}
    former = {name for cell in told.values() for name in re.findall(r"`(.+?)`", cell)}
    assert former == {
        f"{package} {name}" for package, names in VERSION_2.items() for name in names
    } - {"harness code"}


def test_the_command_can_be_called_by_the_package_and_by_its_script():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"] == {
        "shrinkmark": "harness.cli.command:main"
    }
    done = run("--help")
    assert done.returncode == 0 and "Usage: shrinkmark [OPTIONS] COMMAND" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compress", "digits", "wnda"], "did you mean 'wanda'"),
        (["compress", "digit", "wanda"], "did you mean 'digits'"),
        (["measure", "digits", "gpu"], "unknown hardware 'gpu'"),
        (["train", "cifar"], "unknown track 'cifar'"),
        (["sweep", "digit"], "did you mean 'digits'"),
        (["sweep", "digits", "--method", "wnda"], "did you mean 'wanda'"),
        (["sweep", "digits", "--remote", "/shared"], "are for a cluster: name it with --address"),
        (
            ["export", "digits", "rtn", "resnet_bits=5"],
            "unknown point of rtn with an artefact here 'resnet_bits=5'",
        ),
        (["export", "digits", "rnt", "x"], "did you mean 'rtn'"),
        (["run", "cifar10_ful"], "did you mean 'cifar10_full'"),
        (["macs", "resnet_50"], "did you mean"),
        (["check", "params", "--params", "nothing.yaml"], "nothing.yaml not found"),
        (["methods", "--page", "Makefile"], "Makefile lacks the lines <!-- methods:begin -->"),
        (["new", "wanda"], "already"),
        (["new", "My-Method"], "cannot name a method"),
    ],
)
def test_bad_input_is_one_line_and_a_non_zero_exit(arguments, said, run_here):
    code, _, stderr = run_here(*arguments)
    assert code == 2 and said in stderr
    assert stderr.startswith("error: ") and stderr.count("\n") == 1, stderr


def test_a_process_of_its_own_ends_as_the_command_does():
    done = run("compress", "digits", "wnda")
    assert (
        done.returncode == 2
        and done.stdout == ""
        and done.stderr == "error: unknown method in params.yaml 'wnda': did you mean 'wanda'?\n"
    )


def test_a_track_without_its_data_and_without_a_network_says_in_one_line_what_to_put_where(
    tmp_path, monkeypatch, run_here
):
    monkeypatch.setenv("SHRINKMARK_DATA", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        # nothing listens there: no network, wherever the test runs
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    code, _, stderr = run_here("train", "cifar10_cpu")
    assert (
        code == 2
        and f"CIFAR-10 not found in {tmp_path}" in stderr
        and "cifar-10-batches-py/" in stderr
    )
    assert stderr.startswith("error: ") and stderr.count("\n") == 1, stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_track_for_a_gpu_is_refused_at_once_where_there_is_none(run_here):
    code, _, stderr = run_here("train", "cifar10_full")
    assert (code, stderr) == (
        2,
        "error: the track asks for device 'cuda' and torch finds none here: run it on a machine "
        "with a GPU\n",
    )


def test_a_sweep_on_a_cluster_says_how_to_install_ray_where_it_is_not(run_here, monkeypatch):
    monkeypatch.setattr("harness.cli.sweep.find_spec", lambda name: None)
    code, _, stderr = run_here("sweep", "digits", "--address", "auto", "--remote", "/shared")
    assert (code, stderr) == (2, "error: Ray is not installed: pip install -e '.[ray]'\n")


def test_check_params_counts_the_points(params, run_here):
    code, stdout, _ = run_here("check", "params")
    assert code == 0 and f"{len(params.methods)} methods" in stdout


def test_an_unwritable_results_folder_is_one_line(tmp_path):
    from leaderboard.records import files

    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*: free space or mend the permissions"):
        files.write_json(tmp_path / "file" / "x.json", {})


@pytest.fixture
def checkout(tmp_path):
    """Return a folder with a params.yaml and the folders that `new` writes into."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "tests" / "methods").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return tmp_path


def test_new_writes_a_skeleton_a_test_and_one_line_of_params(checkout):
    from leaderboard.records.params import load_params

    written = new_method.create(checkout, "my_method")
    assert [path.name for path in written] == ["my_method.py", "test_my_method.py", "params.yaml"]
    before, after = load_params(ROOT / "params.yaml"), load_params(checkout / "params.yaml")
    assert (
        list(after.methods) == [*before.methods, "my_method"] and after.hardware == before.hardware
    )
    kept = [
        line
        for line in (checkout / "params.yaml").read_text().splitlines()
        if "my_method" not in line and "strength" not in line
    ]
    assert kept == (ROOT / "params.yaml").read_text().splitlines()


def test_new_refuses_the_name_of_a_chain_and_writes_nothing(checkout):
    before = sorted(checkout.rglob("*"))
    with pytest.raises(
        UserError, match="'a__b' cannot name a method: '__' stands between the methods of a chain"
    ):
        new_method.create(checkout, "a__b")
    assert sorted(checkout.rglob("*")) == before


def test_the_skeleton_is_clean_keeps_the_contract_s_form_and_says_that_it_is_to_be_written(
    checkout, make_model, make_data
):
    new_method.create(checkout, "my_method")
    code = (checkout / "methods" / "my_method.py").read_text()
    lint = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--stdin-filename", "methods/my_method.py", "-"],
        cwd=ROOT,
        input=code,
        capture_output=True,
        text=True,
    )
    assert lint.returncode == 0, lint.stdout
    space = {"__name__": "my_method"}
    exec(
        compile(code.replace("from __future__ import annotations\n", ""), "my_method.py", "exec"),
        space,
    )
    with pytest.raises(NotImplementedError, match="yet to be written"):
        space["MyMethod"]().compress(make_model("vit"), make_data("vit"))


@pytest.mark.parametrize("failed", [0, 2])
def test_sweeps_and_whole_tracks_end_with_1_where_points_failed(
    failed, run_here, monkeypatch, tmp_path
):
    summary = Summary(reused=1, run=2, skipped=0, failed=failed)
    monkeypatch.setattr("harness.run.compress.compress", lambda *_: summary)
    monkeypatch.setattr("harness.cli.sweep.start_server", lambda: None)
    code, out, _ = run_here("sweep", "digits")
    assert (code, out) == (
        min(failed, 1),
        f"digits: 2 run, 1 stood, 0 skipped, {failed} failed\n",
    )

    def whole(*_):
        yield "a line"
        return failed

    monkeypatch.setattr("harness.cli.whole_track.run_track", whole)
    monkeypatch.setattr("harness.cli.stages.start_server", lambda: None)
    assert run_here("run", "digits", "--into", str(tmp_path))[:2] == (min(failed, 1), "a line\n")


def test_what_is_interrupted_ends_with_130_and_says_how_to_go_on(run_here, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.cli.macs_table.of_timm_model", pressed)
    again = "interrupted: nothing is half-written; go on with: shrinkmark macs resnet18\n"
    assert run_here("macs", "resnet18") == (130, "", again)

    def in_the_pool(*_):
        with workers(1):
            raise KeyboardInterrupt

    monkeypatch.setattr("harness.run.compress.compress", in_the_pool)
    again = "interrupted: finished points are kept; go on with: shrinkmark compress digits wanda\n"
    assert run_here("compress", "digits", "wanda") == (130, "", again)
    monkeypatch.setattr(
        "harness.latency.measure.pytest.main", lambda *_, **__: pytest.ExitCode.INTERRUPTED
    )
    with pytest.raises(Interrupted, match="nothing was measured"):
        timed(None, load_params(ROOT / "params.yaml").profile("cpu"))


@pytest.fixture
def compressed(monkeypatch):
    """Let `compress` end at once."""
    monkeypatch.setattr("harness.run.compress.compress", lambda *_: Summary(3, 2, 1, 0))
    monkeypatch.setenv("TQDM_DISABLE", "")  # put back as it was


def test_quiet_prints_nothing_and_json_what_a_script_reads(compressed, run_here):
    assert run_here("compress", "digits", "wanda") == (
        0,
        "digits wanda: 2 run, 3 stood, 1 skipped, 0 failed\n",
        "",
    )
    assert run_here("compress", "digits", "wanda", "--quiet") == (0, "", "")
    assert os.environ["TQDM_DISABLE"] == "1"
    code, stdout, stderr = run_here("compress", "digits", "--json")
    assert (code, stderr) == (0, "")
    assert json.loads(stdout) == {"reused": 3, "run": 2, "skipped": 1, "failed": 0}


@pytest.mark.parametrize(
    "command", ["try", "train", "compress", "run", "sweep", "measure", "rerun", "check bundle"]
)
def test_what_takes_long_can_be_silenced(command):
    assert "--quiet" in CliRunner().invoke(app, [*command.split(), "--help"]).stdout


def test_counts_and_methods_can_be_read_by_a_script(run_here):
    counted = json.loads(run_here("macs", "resnet18", "--json")[1])
    assert (counted["model"], counted["macs"], counted["flops"]) == (
        "resnet18",
        1814073344,
        3628146688,
    )
    assert sum(operator["macs"] for operator in counted["operators"]) == counted["macs"]
    listed = json.loads(run_here("methods", "--json")[1])
    assert [row["method"] for row in listed] == list(load_params(ROOT / "params.yaml").methods)
    assert listed[0]["needs"] == "data-free" and isinstance(listed[0]["lines of code"], int)
