"""What one machine measured of a track, packed into one file for others to check and
add: `shrinkmark check bundle` reads it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from harness.latency import runtimes
from harness.run.fingerprint import LIBRARIES, OF_SOME
from harness.run.paths import ROOT, Paths
from leaderboard.exchange.manifest import FORMAT, MANIFEST, Code, Manifest, PackedFile, layout
from leaderboard.exchange.plausible import latency_files
from leaderboard.records.errors import UserError
from leaderboard.records.latency import Report
from leaderboard.records.params import Params
from leaderboard.records.results import read_record, read_track
from leaderboard.records.schema import CostsFile

# that decide or measure results
PACKAGES = (
    *LIBRARIES,
    *OF_SOME.values(),
    "pytest-benchmark",
    "safetensors",
    "torchvision",
)
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same results give the same bytes


def write_bundle(
    params: Params, paths: Paths, params_file: Path, track: str, into: Path
) -> Manifest:
    """Pack the records of `track` that were made here into the zip file `into` and
    return its manifest.

    Raises UserError if the track has no whole results, or one of them names this
    machine or a folder of it.
    """
    params.track(track)
    files = {
        name: path.read_bytes() for name, path in _files(params, paths, params_file, track).items()
    }
    _check_anonymous(paths, files)
    manifest = _manifest(params, track, files)
    content = {MANIFEST: (manifest.model_dump_json(indent=1) + "\n").encode()} | files
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        _write(into, content)
    except OSError as error:
        raise UserError(
            f"cannot write {into}: {error.strerror}: name another file with --into FILE"
        ) from error
    return manifest


def _write(into: Path, content: dict[str, bytes]) -> None:
    temporary = into.with_name(f".{into.name}.tmp")
    with ZipFile(temporary, "w", ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in sorted(content.items()):
            entry = ZipInfo(name, EPOCH)
            # 3: Unix
            entry.compress_type, entry.create_system, entry.external_attr = (
                ZIP_DEFLATED,
                3,
                0o644 << 16,
            )
            archive.writestr(entry, data, compresslevel=9)
    temporary.replace(into)


def _files(params: Params, paths: Paths, params_file: Path, track: str) -> dict[str, Path]:
    """Return what is packed by its name in the bundle: whole results that were made
    here, the code they rest on, and params.yaml.
    """
    records = paths.records(track)
    found = read_track(paths.root / "results", params.version, track)
    latency = [path for path in latency_files(records) if read_record(path, Report).origin is None]
    own = [method.method.name for method in found.methods if method.origin is None]
    of_methods = [
        path
        for name in own
        for path in (paths.points(track, name), paths.predictions(track, name))
        if path.exists()
    ]
    costs = [
        path
        for path in sorted(paths.costs(track).glob("*.json"))
        if read_record(path, CostsFile).origin is None
    ]
    named = {
        path.relative_to(paths.root).as_posix(): path
        for path in (records / "track.json", *of_methods, *costs, *latency)
    } | {"params.yaml": params_file}
    own_file = paths.root / "tracks" / track / "track.yaml"
    named |= {own_file.relative_to(paths.root).as_posix(): own_file} if own_file.exists() else {}
    allowed = layout(params.version, track)
    strange = next((name for name in named if not allowed.fullmatch(name)), None)
    if strange is not None:
        raise UserError(
            f"{named[strange]} is not named as results are: run `make repro TRACK={track}`, or "
            f"`shrinkmark run {track}`"
        )
    return named


def _check_anonymous(paths: Paths, files: dict[str, bytes]) -> None:
    """Refuse files that name this machine or where it keeps them: a bundle is for
    strangers.
    """
    private = {
        str(paths.root): "the path of this folder",
        str(Path.home()): "the path of your home",
        f'"{platform.node()}"': "this machine's name",
    }
    for name, content in files.items():
        found = next(
            (what for text, what in private.items() if len(text) > 2 and text.encode() in content),
            None,
        )
        if found is not None:
            raise UserError(
                f"{name} holds {found}, which strangers need not know: run its stage again, or "
                "take that text out"
            )


def _manifest(params: Params, track: str, files: dict[str, bytes]) -> Manifest:
    machines: dict[str, tuple[str, ...]] = {}
    for name in sorted(name for name in files if "/latency/" in name):
        hardware, file = name.split("/")[-2:]
        machines[hardware] = (*machines.get(hardware, ()), file.removesuffix(".json"))
    return Manifest(
        format=FORMAT,
        version=params.version,
        track=track,
        code=_code(),
        packages={"python": platform.python_version(), **_versions(params)},
        machines=machines,
        files={
            name: PackedFile(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for name, content in sorted(files.items())
        },
    )


def _versions(params: Params) -> dict[str, str]:
    used = {
        package
        for profile in params.profiles.values()
        if (package := runtimes.named(profile.runtime).package) is not None
    }
    installed = {
        about.name.lower(): about.version
        for about in importlib.metadata.distributions()
        if about.name
    }
    return {name: installed[name] for name in sorted({*PACKAGES, *used}) if name in installed}


def _code() -> Code:
    """Return the commit of the code, if it lies in a git checkout of its own."""
    unknown = Code(revision="unknown", dirty=None)
    try:
        top, revision = _git("rev-parse", "--show-toplevel", "HEAD").split("\n")[:2]
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return unknown
    return Code(revision=revision, dirty=bool(changed)) if Path(top) == ROOT.resolve() else unknown


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()
