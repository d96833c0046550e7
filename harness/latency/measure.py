"""The stage `measure@<track>-<hardware>`: latency of the artefacts through
pytest-benchmark, interleaved with dense in one process.

One file for each machine, named after its fingerprint, so that another machine's
numbers are neither overwritten nor mixed in. A machine that cannot serve the profile
measures nothing and says why.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.data import splits
from harness.latency import benchmark, runtimes
from harness.latency.clock import CLOCKS
from harness.latency.job import LatencyJob
from harness.latency.plan import TimedPoint, TimingPlan, plan_of
from harness.latency.plugin import LatencyPlugin
from harness.latency.standing import KEY, key_of
from harness.run.paths import Paths
from harness.run.progress import progress
from leaderboard.records import files
from leaderboard.records.errors import Interrupted, UserError, one_line
from leaderboard.records.params import HardwareParams, Params

OPTIONS = [
    "--benchmark-only",
    "--benchmark-disable-gc",
    "--benchmark-quiet",
    "-q",
    "--no-header",
    "--no-summary",
    "-p",
    "no:cacheprovider",
]


@dataclass(frozen=True)
class TimingOutcome:
    """Why nothing was measured, or the file that was written and the reasons for which
    single points are not in it.
    """

    skipped: str | None
    file: Path | None
    failed: dict[str, str]


def measure(params: Params, paths: Paths, track: str, hardware: str) -> TimingOutcome:
    """Time every job and write pytest-benchmark's JSON; where the machine cannot serve
    the profile, leave everything as it is.
    """
    profile, folder = params.profile(hardware), paths.latency(track, hardware)
    runtimes.check({hardware: profile})
    folder.mkdir(parents=True, exist_ok=True)
    lacking = runtimes.missing(profile)
    if lacking is not None:
        return TimingOutcome(lacking, None, {})
    plan = plan_of(params, paths, track, profile)
    jobs, refused = jobs_of(params, paths, track, profile, plan)
    about = params.track(track)
    images = {
        model: _images(splits.folder_of(paths.data(track), about, model), hardware, profile)
        for model in dict.fromkeys(job.point.model for job in jobs)
    }
    with progress(f"{track}: latency {hardware}", "run", (job.id for job in jobs)) as bar:
        plugin = LatencyPlugin(jobs, profile, images, bar)
        report = timed(plugin, profile)
    file = folder / f"{report['machine_info']['shrinkmark']['fingerprint']}.json"
    failed = [{**point.name, "reason": reason} for point, reason in refused] + plugin.failed
    more = {"same_program": plan.same_program, "failed": failed, KEY: key_of(profile, plan)}
    files.write_json(file, {**report, **more})
    return TimingOutcome(
        None, file, {f"{entry['method']} {entry['id']}": entry["reason"] for entry in failed}
    )


def _images(folder: Path, hardware: str, profile: HardwareParams) -> Tensor:
    """Return the test images that a model is timed on, on the profile's device; raise
    UserError if there are fewer than a batch.
    """
    test = splits.TestSplit.read(folder)
    if max(profile.batches) > len(test.labels):
        raise UserError(
            f"hardware '{hardware}' asks for a batch of {max(profile.batches)}, the test split "
            f"has {len(test.labels)} images: lower it"
        )
    count = max(benchmark.COMPARED, *profile.batches)
    return test.images(count).to(torch.device(profile.device))


def jobs_of(
    params: Params, paths: Paths, track: str, profile: HardwareParams, plan: TimingPlan
) -> tuple[list[LatencyJob], list[tuple[TimedPoint, str]]]:
    """Return the jobs of `plan`, point by point, and the points that the runtime cannot
    be given, with the reason.
    """
    wanted = {folder: point.model for point in plan.timed for folder in (point.dense, point.folder)}
    made = runtimes.of(profile).prepare_track(params, paths, track, wanted)
    jobs, refused = [], []
    for point in plan.timed:
        artefact, dense = made[point.folder], made[point.dense]
        if isinstance(artefact, Path) and isinstance(dense, Path):
            jobs += [LatencyJob(point, batch, artefact, dense) for batch in profile.batches]
        else:
            refused.append((point, artefact if isinstance(artefact, str) else f"dense is {dense}"))
    return jobs, refused


def timed(plugin: LatencyPlugin, profile: HardwareParams) -> Any:
    """Run the benchmark of the plugin's jobs in this process and return
    pytest-benchmark's report.
    """
    with tempfile.TemporaryDirectory() as temporary:
        written, empty = Path(temporary) / "latency.json", Path(temporary) / "pytest.ini"
        empty.write_text("[pytest]\n")
        clock = CLOCKS[profile.device]
        options = [
            f"--benchmark-json={written}",
            f"--benchmark-storage={Path(temporary).as_uri()}",  # else .benchmarks in this folder
            f"--benchmark-timer={clock.__module__}.{clock.__name__}",
            *OPTIONS,
        ]
        output = io.StringIO()
        gc.freeze()  # or each program read is slower by a sixth, for what is collected in between
        with contextlib.redirect_stdout(output), _no_outer_pytest():
            code = pytest.main(
                [str(Path(benchmark.__file__)), "-c", str(empty), "--capture=no", *options],
                plugins=[plugin],
            )
        if code is pytest.ExitCode.INTERRUPTED:
            raise Interrupted("nothing was measured")
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not written.exists():
            raise UserError(
                f"pytest-benchmark ended with {code!s}: {one_line(output.getvalue())[-300:]}"
            )
        return files.read_json(written)


@contextlib.contextmanager
def _no_outer_pytest() -> Iterator[None]:
    """Hide what tells pytest and its plugins of another run, whose options and workers
    are none of ours: a command may be run by somebody's tests.
    """
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PYTEST_")}
    try:
        yield
    finally:
        os.environ.update(hidden)
