"""Sweeps on real Ray clusters of several node processes of this machine, with nodes and
drivers killed on the way; tools/ray_kills.py does it to digits.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("ray")

from benchmarks.testbed.ray_nodes import ROOT, Cluster, commit, driver, environment, wait_until
from harness.cli.lock import alone
from harness.cluster.remote import Remote, send
from harness.cluster.tasks import SPENT
from harness.run.compress import compress
from harness.run.costs import Kept, this_machine
from harness.run.paths import Paths
from harness.run.points import expand
from leaderboard.records import files
from leaderboard.records.params import load_params
from leaderboard.records.results import read_record
from leaderboard.records.schema import CostsFile
from tools.kill_anywhere import finished
from tools.ray_kills import differing, disturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
OLDER = "import ray; ray.__version__ = '2.0.1'; from harness.cli.command import main; main()"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout of the code at hand, committed."""
    return commit(tmp_path_factory.mktemp("code") / "checkout")


@pytest.fixture(scope="module")
def head(checkout):
    with Cluster(checkout) as started:
        yield started


@pytest.fixture
def cluster(head):
    """A cluster without nodes for points."""
    yield head
    head.end_nodes()


def copied(small, folder, **methods):
    """Copy the trained experiment into `folder`; `methods`: in place of its own."""
    params, paths = small
    content = yaml.safe_load((paths.root / "params.yaml").read_text())
    if methods:
        content |= {
            "methods": {name: {"settings": settings} for name, settings in methods.items()},
            "chains": {},
        }
        content["tracks"]["digits"]["methods"] = {}
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    own = Paths(folder, params.version)
    for name in ("data", "dense"):
        shutil.copytree(
            paths.root / "artefacts" / "digits" / name, folder / "artefacts" / "digits" / name
        )
    own.records("digits").mkdir(parents=True)
    shutil.copy(paths.records("digits") / "track.json", own.records("digits"))
    return load_params(folder / "params.yaml"), own


def change(paths, edit):
    """Apply `edit` to the experiment's params."""
    content = yaml.safe_load((paths.root / "params.yaml").read_text())
    edit(content)
    (paths.root / "params.yaml").write_text(yaml.safe_dump(content))


def run(checkout, paths, address, *options, **more):
    """Run a driver to its end and return its exit code, stdout and stderr."""
    process = driver(checkout, paths.root, address, *options, **more)
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def refused(checkout, paths, address, *options, **more):
    """Run a driver that is to be refused and return the line that says why, the only
    one but for a progress bar.
    """
    code, _, err = run(checkout, paths, address, *options, **more)
    assert code == 2 and "Traceback" not in err, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return line


def test_a_sweep_that_loses_a_node_and_its_driver_ends_with_the_files_of_a_local_one(
    cluster, checkout, small, tmp_path
):
    params, paths = copied(small, tmp_path / "cluster")
    points = sum(len(expand(params, "digits", method)) for method in params.plans)
    *killed, done = disturbed(cluster, paths.root, points)
    assert len(killed) == 2 and re.search(r"[1-9] run, [1-9] stood, 2 skipped, 0 failed", done), (
        done
    )
    assert list((paths.root / "shared" / "points").iterdir()) == []
    second = cluster.nodes[1]
    inputs = [
        file for file in (second.cache / "cluster").rglob("*") if file.suffix == ".safetensors"
    ]
    assert sorted(file.name for file in inputs) == [
        "learn.safetensors",
        "mobilenet.safetensors",
        "test.safetensors",
    ]
    _, local = copied(small, tmp_path / "local")
    compress(params, local, "digits")
    assert differing(paths.root, local.root) == []
    assert all(compress(params, paths, "digits", [method]).run == 0 for method in params.plans)


def test_what_a_driver_that_died_did_not_fetch_is_fetched_by_the_next_without_being_run_again(
    cluster, checkout, small, tmp_path
):
    _, paths = copied(small, tmp_path / "cluster", dense=[{}])
    node = cluster.add("only")
    assert run(checkout, paths, cluster.address)[0] == 0
    (folder,) = (paths.root / name for name in finished(paths.root))
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    fingerprint, shared = (
        files.read_json(folder / "record.json")["fingerprint"],
        paths.root / "shared",
    )
    (costs,) = paths.costs("digits").iterdir()
    spent = read_record(costs, CostsFile).points["dense"][folder.name]
    # as a node sends it
    files.write_record(folder / SPENT, Kept(machine=this_machine(), spent=spent))
    send(Remote(str(shared)), fingerprint, folder)
    (shared / "points" / f"{fingerprint}.0.tar.half").write_text(
        "a node was killed when it sent this"
    )
    shutil.rmtree(folder)
    node.end()  # nothing can be run
    code, out, err = run(checkout, paths, cluster.address)
    assert code == 0 and "1 run, 0 stood" in out, err
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole and list(
        (shared / "points").iterdir()
    ) == []


def test_an_interrupt_ends_every_process_of_a_point_and_the_next_sweep_goes_on(
    cluster, checkout, small, tmp_path
):
    _, paths = copied(
        small,
        tmp_path / "cluster",
        magnitude=[{"sparsity": round(0.1 * step, 1)} for step in range(1, 8)],
    )
    node = cluster.add("only")
    process = driver(checkout, paths.root, cluster.address)
    wait_until(lambda: len(finished(paths.root)) >= 2, 240)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert (
        process.returncode == 130
        and "interrupted: finished points are kept; go on with: shrinkmark sweep" in err
        and "Traceback" not in err
    )
    assert " running, 0 failed" in err and " of 7 points, at " in err, "progress was shown"
    wait_until(lambda: not node.points, 120)
    kept = len(finished(paths.root))
    code, out, _ = run(checkout, paths, cluster.address)
    assert (
        code == 0 and f"{7 - kept} run, {kept} stood, 0 skipped, 0 failed" in out and 2 <= kept < 7
    )


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        ("torch", "it has torch 2.0.0+other"),
        ("timm", "its code or libraries are of another revision: dense would be made by"),
    ],
)
def test_a_node_that_would_make_another_point_is_refused_and_the_others_run_the_drivers_code(
    cluster, checkout, small, tmp_path, library, reason
):
    _, paths = copied(small, tmp_path / "cluster", dense=[{}], rtn=[{"bits": 4}, {"bits": 3}])
    foreign, old = tmp_path / "foreign", tmp_path / "old"
    for folder in (foreign, old / "harness"):
        folder.mkdir(parents=True)
    (foreign / "sitecustomize.py").write_text(
        "import importlib.metadata as m\nfound = m.version\nm.version = lambda name: "
        f"'2.0.0+other' if name == '{library}' else found(name)\n"
    )
    (old / "harness" / "__init__.py").write_text("raise ImportError('this is another revision')\n")
    cluster.add("foreign", path=[foreign])
    said = refused(checkout, paths, cluster.address)
    assert "no node is left for " in said and f"; the last was refused: {reason}" in said
    cluster.add("right", path=[old])
    code, out, err = run(checkout, paths, cluster.address)
    assert code == 0 and "3 run, 0 stood, 0 skipped, 0 failed" in out, err


def site(folder, statement):
    """Return a folder that makes a node's Python run `statement` whenever its worker
    begins to prepare a point.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, tempfile\nold = tempfile.TemporaryDirectory\n"
        "def preparing(*args, **kwargs):\n"
        f"    if kwargs.get('prefix') == 'shrinkmark-':\n        {statement}\n"
        "    return old(*args, **kwargs)\n"
        "tempfile.TemporaryDirectory = preparing\n"
    )
    return folder


def test_a_point_that_kills_its_worker_is_tried_four_times_and_is_then_a_failed_row_with_its_reason(
    cluster, checkout, small, tmp_path
):
    _, paths = copied(small, tmp_path / "cluster", dense=[{}])
    tries = tmp_path / "tries"
    cluster.add(
        "deadly",
        path=[
            site(
                tmp_path / "site", f"open({str(tries)!r}, 'a').write('x'); os.kill(os.getpid(), 9)"
            )
        ],
    )
    code, out, err = run(checkout, paths, cluster.address)
    assert code == 1 and "1 run, 0 stood, 0 skipped, 1 failed" in out, err
    (record,) = files.read_json(paths.points("digits", "dense"))["points"]
    assert tries.read_text() == "xxxx" and record["reason"].startswith(
        "tried 4 times on the cluster, at last: WorkerCrashedError: "
    )


def test_points_that_a_node_cannot_run_are_tried_on_another(cluster, checkout, small, tmp_path):
    _, paths = copied(
        small,
        tmp_path / "cluster",
        magnitude=[{"sparsity": round(0.1 * step, 1)} for step in range(1, 8)],
    )
    cluster.add(
        "full", path=[site(tmp_path / "site", "raise OSError(28, 'No space left on device')")]
    )
    code, out, _ = run(checkout, paths, cluster.address)
    assert code == 1 and "7 run, 0 stood, 0 skipped, 7 failed" in out, "there is no other"
    reason = files.read_json(paths.points("digits", "magnitude"))["points"][0]["reason"]
    assert (
        reason
        == "tried 4 times on the cluster, at last: OSError: [Errno 28] No space left on device"
    )
    cluster.add("well")
    code, out, err = run(checkout, paths, cluster.address)
    assert code == 0 and "7 run, 0 stood, 0 skipped, 0 failed" in out, err


def test_a_point_larger_than_its_memory_is_a_failed_row_and_the_others_are_done(
    cluster, checkout, small, tmp_path
):
    _, paths = copied(small, tmp_path / "cluster", dense=[{}], magnitude=[{"sparsity": 0.5}])
    change(paths, lambda content: content["run"].update(gibibytes=0.001))
    cluster.add("only")
    code, out, err = run(checkout, paths, cluster.address)
    assert code == 1 and "2 failed" in out, err
    (record,) = files.read_json(paths.points("digits", "magnitude"))["points"]
    assert "out of memory (run.gibibytes in params.yaml)" in record["reason"]


HOLD = """
import ray, sys, time, pathlib
ray.init(sys.argv[1], log_to_driver=False)
node = next(node["NodeID"] for node in ray.nodes() if node["Resources"].get("hardware:cpu"))
hold = ray.remote(lambda file: (pathlib.Path(file).touch(), time.sleep(600)))
ray.get(hold.options(num_cpus=0.5, label_selector={"ray.io/node-id": node}).remote(sys.argv[2]))
"""


def test_latency_is_timed_on_the_node_that_offers_the_hardware_and_only_when_nothing_else_runs_there(
    cluster, checkout, small, tmp_path
):
    _, paths = copied(small, tmp_path / "cluster", dense=[{}], rtn=[{"bits": 4}])
    cluster.add("plain")
    assert "no node offers hardware 'cpu': start one with" in refused(
        checkout, paths, cluster.address, "--measure", "cpu"
    )
    measured = cluster.add("measured", resources={"hardware:cpu": 1})
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, cluster.address, tmp_path / "held"], env=environment(checkout)
    )
    wait_until((tmp_path / "held").exists, 240)
    process = driver(checkout, paths.root, cluster.address, "--measure", "cpu")
    assert "2 run, 0 stood" in process.stdout.readline()
    time.sleep(10)  # enough to begin
    assert not any("measure" in command for command in measured.commands), (
        "somebody else holds half of a processor there"
    )
    held.kill()
    wait_until(lambda: any("measure" in command for command in measured.commands), 240)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0 and "digits on cpu: latency measured" in out, err
    (report,) = paths.latency("digits", "cpu").glob("*.json")
    assert [row["extra_info"]["method"] for row in files.read_json(report)["benchmarks"]] == [
        "dense",
        "rtn",
    ], "rtn: the control"


FILL = """
import ray, numpy, sys, time
ray.init(sys.argv[1], log_to_driver=False)
kept = [ray.put(numpy.ones(2**20)) for _ in range(14)]
print("full", flush=True)
time.sleep(600)
"""


def test_a_full_object_store_does_not_stand_in_the_way(cluster, checkout, small, tmp_path):
    _, paths = copied(small, tmp_path / "cluster", dense=[{}])
    cluster.add("only")
    filler = subprocess.Popen(
        [sys.executable, "-c", FILL, cluster.address],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(checkout),
    )
    try:
        assert "full" in filler.stdout.readline()
        code, out, err = run(checkout, paths, cluster.address)
    finally:
        filler.kill()
    assert code == 0 and "1 run, 0 stood" in out, err


def test_a_cluster_that_cannot_be_joined_is_one_clear_line(cluster, checkout, small, tmp_path):
    _, paths = copied(small, tmp_path / "cluster")
    assert "no Ray cluster at 127.0.0.1:1: " in refused(checkout, paths, "127.0.0.1:1")
    assert "no Ray cluster at ray://127.0.0.1:1: " in refused(checkout, paths, "ray://127.0.0.1:1")
    assert "runs another Ray or Python, here is Ray 2.0.1" in refused(
        checkout, paths, cluster.address, program=("-c", OLDER)
    )
    assert "does not take our token: " in refused(
        checkout, paths, cluster.address, RAY_AUTH_TOKEN="0" * 64
    )


def test_what_no_node_or_remote_can_give_is_one_clear_line(cluster, checkout, small, tmp_path):
    _, paths = copied(small, tmp_path / "cluster")
    cluster.add("only")
    assert "a point asks for 64 CPUs, 0 GPUs and 0 GiB, but the " in refused(
        checkout, paths, cluster.address, "--cpus", "64"
    )
    assert "a point asks for 1 CPUs, 0 GPUs and 4000 GiB" in refused(
        checkout, paths, cluster.address, "--memory", "4000"
    )
    assert "the remote /proc/none refuses: " in refused(
        checkout, paths, cluster.address, "--remote", "/proc/none"
    )
    change(paths, lambda content: content["tracks"]["digits"].update(device="cuda"))
    assert "a point asks for 1 CPUs, 0.5 GPUs and 0 GiB, but the " in refused(
        checkout, paths, cluster.address, "--gpus", "0.5"
    )
    with alone(paths, "digits"):
        assert "another command works on track 'digits' in cluster" in refused(
            checkout, paths, cluster.address
        )
    assert not finished(paths.root)


def test_a_local_cluster_is_started_and_ended_with_the_sweep(checkout, small, tmp_path):
    _, paths = copied(small, tmp_path / "cluster", dense=[{}])
    code, out, err = run(checkout, paths, "local")
    assert code == 0 and "1 run, 0 stood, 0 skipped, 0 failed" in out, err


def test_a_driver_outside_of_the_cluster_sweeps_through_a_client(
    cluster, checkout, small, tmp_path
):
    _, paths = copied(small, tmp_path / "cluster", dense=[{}], rtn=[{"bits": 4}])
    cluster.add("only")
    code, out, err = run(checkout, paths, cluster.outside)
    assert code == 0 and "2 run, 0 stood, 0 skipped, 0 failed" in out, err


@pytest.fixture
def slurm(tmp_path):
    """Commands of a Slurm of two machines: namespaces with processes and an address of
    their own, joined by a cable.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("namespaces need root and iproute2")
    names, bin = [f"{end}{os.getpid()}" for end in "ab"], tmp_path / "bin"
    in_each = "ip netns exec $name unshare --pid --fork --mount-proc --kill-child"
    bin.mkdir()
    (bin / "scontrol").write_text("#!/bin/bash\necho 10.77.0.1\n")
    (bin / "srun").write_text(
        f'#!/bin/bash\nwhile [[ "$1" == --* ]]; do shift; done\nfor name in {" ".join(names)}; do '
        f'{in_each} "$@" & done\nwait $(jobs -p)\n'
    )
    for file in bin.iterdir():
        file.chmod(0o755)
    commands = [f"netns add {name}" for name in names] + [
        f"link add to netns {names[0]} type veth peer name to netns {names[1]}"
    ]
    for number, name in enumerate(names, start=1):
        commands += [
            f"-n {name} address add 10.77.0.{number}/24 dev to",
            f"-n {name} link set to up",
            f"-n {name} link set lo up",
        ]
    short = tempfile.mkdtemp(prefix="slurm")  # sockets lie in it
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        yield {
            "TMPDIR": short,
            "PATH": f"{bin}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_ON_NODE": "1",
        }
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=True)
        shutil.rmtree(short, ignore_errors=True)


def test_the_script_for_slurm_sweeps_on_two_machines(slurm, checkout, small, tmp_path):
    _, paths = copied(small, tmp_path / "cluster", dense=[{}], rtn=[{"bits": 4}, {"bits": 3}])
    about = {
        "SLURM_SUBMIT_DIR": str(checkout),
        "SLURM_JOB_NODELIST": "a,b",
        "SHARED": str(paths.root / "shared"),
    }
    command = [
        "bash",
        str(ROOT / "deploy" / "slurm.sh"),
        "--track",
        "digits",
        "--params",
        str(paths.root / "params.yaml"),
    ]
    done = subprocess.run(
        command,
        env=environment(checkout, **slurm, **about),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert "3 run, 0 stood, 0 skipped, 0 failed" in done.stdout, done.stdout + done.stderr
