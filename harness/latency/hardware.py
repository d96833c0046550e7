"""What this machine can measure: which hardware profiles it serves, under which
fingerprint, and how far its clock wanders.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data.transform import transform_of
from harness.latency import machine, runtimes
from harness.latency.benchmark import seconds_of, warm
from harness.latency.clock import CLOCKS
from harness.latency.runtimes import Runner, missing
from harness.models import build
from harness.point import store
from leaderboard.records.params import HardwareParams, ModelParams, Params
from leaderboard.records.statistics import median, noise_floor, paired_ratios

ROUNDS = 100  # of the A/A control


@dataclass(frozen=True)
class Served:
    """A profile on this machine: what is lacking, or its fingerprint and the noise floor
    (a share) of `model` against itself.
    """

    hardware: str
    lacking: str | None
    fingerprint: str | None = None
    noise_floor: float | None = None
    model: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.hardware}: fingerprint {self.fingerprint}, noise floor "
            f"±{100 * self.noise_floor:.1f} % ({self.model} against itself, one image)"
            if self.noise_floor is not None
            else f"{self.hardware}: not here: {self.lacking}"
        )


def report(params: Params) -> Iterator[Served]:
    """Yield for each profile why it cannot be served here, or its fingerprint and noise
    floor, measured now on the first model of the first track.
    """
    runtimes.check(params.profiles)
    track = next(iter(params.tracks.values()))
    name, model = next(iter(track.models.items()))
    for hardware, profile in params.profiles.items():
        lacking = missing(profile)
        if lacking is not None:
            yield Served(hardware, lacking)
            continue
        floor = floor_of(profile, model, transform_of(track, name).size)
        yield Served(hardware, None, machine.fingerprint(profile)["fingerprint"], floor, name)


@torch.inference_mode()
def floor_of(profile: HardwareParams, model: ModelParams, size: tuple[int, int]) -> float:
    """Return the noise floor of `ROUNDS` rounds of an untrained model against itself,
    one image of one channel and `size` at a time.
    """
    torch.set_num_threads(profile.threads)
    image = torch.zeros(1, 1, *size, device=profile.device)
    run, clock = _untrained(profile, model, image), CLOCKS[profile.device]
    warm(run, image, clock)
    seconds = np.array([seconds_of(run, image, clock) for _ in range(2 * ROUNDS + 1)])
    return noise_floor([median(paired_ratios(seconds[::2], seconds[1::2]))])


def _untrained(profile: HardwareParams, model: ModelParams, image: Tensor) -> Runner:
    runtime = runtimes.of(profile)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store.write(
            folder,
            store.export(build.build(model, 1, 10).eval(), image.cpu().repeat(2, 1, 1, 1)),
            {},
        )
        return runtime.load(profile, runtime.prepare(folder, image))(image)
