"""The contract of a runtime: what runs an artefact when it is timed.

A runtime is one file of this folder that holds one class derived from `Runtime`;
profiles of params.yaml name it by its file. Files whose name begins with an underscore
are parts that runtimes share.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, get_args

import cpuinfo
import torch
from torch import Tensor

from harness.run.paths import Paths
from leaderboard.records.errors import UserError, one_line, unknown
from leaderboard.records.params import HardwareParams, Params
from methods import Realisation

# images (N, C, H, W) on the profile's device -> logits (N, classes)
Runner = Callable[[Tensor], Tensor]
Program = Callable[[Tensor], Runner]  # images like those to come -> what runs batches of their size


class Runtime(ABC):
    """What runs an artefact. Only `load` must be written; the rest says in what a
    runtime differs from PyTorch run eagerly.

    serves: pairs of device and precision; place: how a profile of any other pair is
    told so. package: what runs the artefact, if not torch: its version is part of the
    machine's fingerprint. zeros: the pattern of zeros that its kernels leave out, e.g.
    "2:4": without one, masked points are not timed.
    """

    serves: ClassVar[frozenset[tuple[str, str]]] = frozenset(
        {("cpu", "fp32"), ("cpu", "bf16"), ("cuda", "fp32"), ("cuda", "bf16")}
    )
    place: ClassVar[str] = "runs on every device in every precision"
    package: ClassVar[str | None] = None
    zeros: ClassVar[str | None] = None

    @property
    def name(self) -> str:
        """Return the name by which profiles know it: that of its file."""
        return type(self).__module__.rpartition(".")[2]

    def lacks(self, profile: HardwareParams) -> str | None:
        """Say in one line what this machine lacks to serve `profile`, beside its
        device, processor and cores, or None if it can.
        """
        return None if self.package is None else not_installed(self.package)

    def identity(self) -> dict[str, str]:
        """Return what it adds to the fingerprint of a machine."""
        about = (
            {}
            if self.package is None
            else {"runtime": f"{self.package} {importlib.metadata.version(self.package)}"}
        )
        return about if self.zeros is None else about | {"sparse": self.zeros}

    def prepare(self, folder: Path, image: Tensor) -> Path:
        """Return what `load` takes of the artefact in `folder`, where files may be
        added, for images like `image` (1, C, H, W): the folder itself.
        """
        return folder

    def prepare_track(
        self, params: Params, paths: Paths, track: str, folders: Mapping[Path, str]
    ) -> dict[Path, Path | str]:
        """Return by artefact of a track, each given with its model, what `load` takes of
        it: the folder itself; or, as a string, what it is not, e.g. "not exported to
        ONNX: why".
        """
        return {folder: folder for folder in folders}

    def alone(self, folder: Path, operators: Collection[str]) -> bool:
        """Say whether the time of the artefact in `folder`, whose program has the
        `operators`, depends on its weights: then it stands for no other's.
        """
        return False

    def as_evaluated(self, profile: HardwareParams) -> bool:
        """Say whether artefacts run as they did when their predictions were recorded,
        so that these need not be compared.
        """
        return False

    @abstractmethod
    def load(self, profile: HardwareParams, artefact: Path) -> Program:
        """Return what `profile` runs; `artefact` is what was prepared."""


def names() -> list[str]:
    """Return the names of all runtimes, without importing any."""
    return sorted(
        {
            file.stem
            for folder in __path__
            for file in Path(folder).glob("*.py")
            if not file.stem.startswith("_")
        }
    )


def named(name: str) -> Runtime:
    """Return the runtime `name`; raise UserError if there is none, its import fails, or
    it does not hold exactly one complete Runtime.
    """
    if name not in names():
        raise unknown("runtime", name, names())
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except Exception as error:
        raise UserError(
            f"runtime '{name}' cannot be imported: {type(error).__name__}: {one_line(str(error))}"
        ) from error
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and issubclass(value, Runtime)
    ]
    if len(own) != 1 or inspect.isabstract(own[0]):
        raise UserError(
            f"runtime '{name}' must be one class derived from Runtime with a method load, found "
            f"{len(own)}: see {__name__}"
        )
    return own[0]()


def of(profile: HardwareParams) -> Runtime:
    """Return the runtime of `profile`; raise UserError if there is none, or it does not
    serve that device in that precision.
    """
    runtime = named(profile.runtime)
    if (profile.device, profile.precision) not in runtime.serves:
        raise UserError(
            f"runtime {runtime.name} {runtime.place}, found device {profile.device}, precision "
            f"{profile.precision}"
        )
    return runtime


def check(profiles: Mapping[str, HardwareParams]) -> None:
    """Raise UserError, naming the profile, for the first whose runtime does not exist
    or does not serve it, or that asks for rows that there cannot be.
    """
    for hardware, profile in profiles.items():
        try:
            of(profile)
            for name in profile.realisations or []:
                if name not in get_args(Realisation):
                    raise unknown("realisation", name, get_args(Realisation))
        except UserError as error:
            raise UserError(f"hardware '{hardware}': {error}") from error


def missing(profile: HardwareParams) -> str | None:
    """Say in one line what this machine lacks to serve `profile`, or None if it can."""
    if (lacking := of(profile).lacks(profile)) is not None:
        return lacking
    if profile.device == "cuda" and not torch.cuda.is_available():
        return "torch finds no CUDA device here"
    if profile.match.lower() not in processor(profile.device).lower():
        return (
            f"the profile is for '{profile.match}', this machine has '{processor(profile.device)}'"
        )
    cores = len(os.sched_getaffinity(0))
    return (
        f"it asks for {profile.threads} threads, this machine has {cores} cores"
        if profile.threads > cores
        else None
    )


def not_installed(*packages: str) -> str | None:
    """Say in one line which of `packages` are not installed, or None if all are."""
    absent = [name for name in packages if find_spec(name) is None]
    return f"{' and '.join(absent)} not installed: pip install -e '.[runtimes]'" if absent else None


def processor(device: str) -> str:
    """Return the name of the processor, or of the GPU if `device` is cuda."""
    return (
        torch.cuda.get_device_name()
        if device == "cuda"
        else str(cpuinfo.get_cpu_info().get("brand_raw", "unknown"))
    )


def load(profile: HardwareParams, artefact: Path) -> Program:
    """Return what `profile` runs: `artefact` is what its runtime has prepared of a
    point.
    """
    return of(profile).load(profile, artefact)
