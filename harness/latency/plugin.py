"""The pytest plugin that hands jobs, profile and images to the benchmark, and adds to
pytest-benchmark's report what it does not know.
"""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from harness.latency import machine
from harness.latency.job import LatencyJob
from harness.run.progress import Progress
from leaderboard.records.errors import one_line
from leaderboard.records.params import HardwareParams


class LatencyPlugin:
    """Jobs by name, the profile and the test images as fixtures; the machine's
    fingerprint in the report; a bar that moves; reasons of failures.
    """

    def __init__(
        self,
        jobs: list[LatencyJob],
        profile: HardwareParams,
        by_model: dict[str, Tensor],
        bar: Progress,
    ) -> None:
        self.jobs, self.profile, self.by_model = {job.id: job for job in jobs}, profile, by_model
        self.bar, self.failed = bar, list[dict[str, Any]]()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one benchmark of each job, known to pytest-benchmark by its name alone:
        its JSON is committed and shall hold no path of a machine.
        """
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
    def images(self, job: LatencyJob) -> Tensor:
        """Return the test images as the job's model takes them."""
        return self.by_model[job.point.model]

    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """Add our fingerprint: pytest-benchmark's machine info knows no threads,
        governor, GPU or runtime; leave out the host's name.
        """
        machine_info.pop("node", None)
        machine_info["shrinkmark"] = machine.fingerprint(self.profile)

    def pytest_benchmark_update_commit_info(self, commit_info: dict[str, Any]) -> None:
        """Leave out the project's name, which is that of a folder of the machine."""
        commit_info.pop("project", None)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Show what is timed."""
        self.bar.begun(_name(nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Move the bar, and remember why a benchmark failed."""
        if report.failed:
            job = self.jobs[_name(report.nodeid)]
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = crash.message if crash is not None else str(report.longrepr)
            self.failed.append(
                {**job.point.name, "batch": job.batch, "reason": one_line(reason)[:240]}
            )
        if report.when == "call":
            self.bar.ended(_name(report.nodeid))


def _name(nodeid: str) -> str:
    """Return the name of the job that a test of the benchmark times."""
    return nodeid.split("[", 1)[-1].removesuffix("]")
