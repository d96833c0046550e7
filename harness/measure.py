"""The stage `measure@<track>-<hardware>`: latency of the artefacts through pytest-benchmark, interleaved with dense in one process.

Masked points get no latency run. Of a row's seeds the first is measured, and any other whose counted MACs differ from the first one's. A program that has
been measured is not measured again with other weights, unless what it does depends on the image: such points are listed in the file under `same_program`.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from torch import Tensor
from tqdm import tqdm

from harness import bench_latency, data, files, machine, store
from harness.errors import UserError
from harness.latency_job import LatencyJob
from harness.params import HardwareParams, Params
from harness.paths import Paths
from harness.points import DENSE

BRANCH = b"torch.ops.higher_order.cond"  # in the graph of a program that branches


class Latency:
    """The pytest plugin that hands jobs, profile and images to the benchmark, adds the fingerprint, and shows progress."""

    def __init__(self, jobs: list[LatencyJob], profile: HardwareParams, images_: Tensor, title: str) -> None:
        self.jobs, self.profile, self.images_ = {job.id: job for job in jobs}, profile, images_
        self.bar = tqdm(total=len(jobs), desc=title, unit="run", mininterval=0.5)
        self.failed: dict[str, str] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one benchmark of each job, known to pytest-benchmark by its name alone: its JSON is committed and shall hold no path of a machine."""
        metafunc.parametrize("name", list(self.jobs))

    @pytest.fixture
    def job(self, name: str) -> LatencyJob:
        """Return the job of that name."""
        return self.jobs[name]

    @pytest.fixture
    def hardware(self) -> HardwareParams:
        """Return the hardware profile."""
        return self.profile

    @pytest.fixture
    def images(self) -> Tensor:
        """Return test images enough for the largest batch."""
        return self.images_

    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """Add our fingerprint: pytest-benchmark's machine info knows no threads, governor or torch build; leave out the host's name."""
        machine_info.pop("node", None)
        machine_info["compressbench"] = machine.fingerprint(self.profile.threads)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Move the bar, and remember why a benchmark failed."""
        if report.failed:
            self.failed[report.nodeid.split("[")[-1].rstrip("]")] = str(report.longrepr).strip().splitlines()[-1]
        if report.when == "call":
            self.bar.update()


@dataclass(frozen=True)
class Plan:
    """What is timed, and the points that need not be, because they run the program of one that is (of dense, if they can)."""

    jobs: list[LatencyJob]
    same_program: list[dict[str, Any]]


def graph(folder: Path) -> bytes:
    """Return the operators of an artefact's program with all their arguments, without its weights."""
    with ZipFile(folder / store.PROGRAM) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/models/model.json")))


def program_of(model: str, folder: Path) -> str:
    """Return what two points share if one timing is right for both: the model and the graph; of a program that branches on the image, itself alone."""
    operators = graph(folder)
    return f"{model} {hashlib.sha256(operators).hexdigest()}" if BRANCH not in operators else str(folder)


def plan_of(params: Params, paths: Paths, track: str, profile: HardwareParams) -> Plan:
    """Return what is to be timed, model by model, dense (the A/A control) first, and what is not."""
    jobs, same_program = [], []
    timed: dict[str, dict[str, str]] = {}
    for method in [DENSE, *(name for name in params.plans if name != DENSE)]:
        content = files.read_json(paths.points(track, method))
        measured: dict[str, int] = {}
        for record in content["points"]:
            row = f"{record['model']} {record['setting']}"
            if record["status"] != "ok" or content["method"]["realisation"] == "masked" or measured.get(row) == record["macs"]:
                continue
            measured.setdefault(row, record["macs"])
            folder, point = paths.artefacts(track, method) / record["id"], {"method": method, "id": record["id"]}
            twin = timed.setdefault(program_of(record["model"], folder), point)
            if twin is not point:
                same_program.append({**point, "timed": twin})
                continue
            row_jobs = (record["id"], record["model"], record["setting"], record["seed"])
            dense = _dense(params, paths, track, record["model"])
            jobs += [LatencyJob(method, *row_jobs, batch, folder, dense) for batch in profile.batches]
    order = list(params.track(track).models)
    return Plan(sorted(jobs, key=lambda job: (order.index(job.model), job.method != DENSE)), same_program)


def _dense(params: Params, paths: Paths, track: str, model: str) -> Path:
    return paths.artefacts(track, DENSE) / f"{model}_seed={params.track(track).seeds[0]}"


def measure(params: Params, paths: Paths, track: str, hardware: str) -> dict[str, str]:
    """Time every job and write pytest-benchmark's JSON; return the reason for each benchmark that failed."""
    profile = params.profile(hardware)
    plan = plan_of(params, paths, track, profile)
    images = data.TestSplit.read(paths.data(track)).images(max(profile.batches))
    if max(profile.batches) > len(images):
        raise UserError(f"hardware '{hardware}' asks for a batch of {max(profile.batches)}, the test split has {len(images)} images: lower it")
    plugin = Latency(plan.jobs, profile, images, f"{track}: latency {hardware}")
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "latency.json"
        empty = Path(temporary) / "pytest.ini"
        empty.write_text("[pytest]\n")
        options = [
            f"--benchmark-json={report}",
            "--benchmark-only",
            "--benchmark-disable-gc",
            "--benchmark-quiet",
            "-q",
            "--no-header",
            "--no-summary",
        ]
        arguments = [str(Path(bench_latency.__file__)), "-c", str(empty), "-p", "no:cacheprovider", "--capture=no", *options]
        output = io.StringIO()
        gc.freeze()  # or each program read is slower by a sixth, for what is collected in between
        with contextlib.redirect_stdout(output):
            code = pytest.main(arguments, plugins=[plugin])
        plugin.bar.close()
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not report.exists():
            raise UserError(f"pytest-benchmark ended with {code!s}: {' '.join(output.getvalue().split())[-300:]}")
        files.write_json(paths.latency(track, hardware), {**files.read_json(report), "same_program": plan.same_program})
    return plugin.failed
