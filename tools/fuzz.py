"""Feed damaged files of our own formats to their readers: each must accept or refuse in
one line, and never break, hang or fill memory.

Run `python -m tools.fuzz --seconds 600`; tests/test_fuzz.py runs a few hundred examples
of each. What breaks a reader is written to tests/corpus/<reader>/, which the test
replays from then on.

Example: python -m tools.fuzz --reader weights --reader params --seconds 60 --seed 7
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from zipfile import BadZipFile, ZipFile

import torch
import typer
from hypothesis import strategies as st

from benchmarks.testbed import tiny_project
from harness.data import splits
from harness.point import archive, predictions, store, weights_file
from harness.run import point_folder
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.latency import read_latency
from leaderboard.records.params import load_params
from leaderboard.records.results import read_record, read_track
from leaderboard.records.schema import CostsFile, MethodPoints, TrackInfo

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "tests" / "corpus"
GIBIBYTES = 2.0  # that a reader may ask for beyond what the process holds
SECONDS = 10.0  # that a reader may take
ODD = [
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    1e308,
    float("nan"),
    "",
    "\n",
    "x" * 5000,
    "../../x",
    [],
    {},
    [[]] * 50,
]


@dataclass(frozen=True)
class Reader:
    """What reads a file, where the file lies in a project, and the errors that are its
    way to refuse.
    """

    name: str
    file: str
    read: Callable[[Path], object]
    refuses: tuple[type[Exception], ...]


def _track(path: Path) -> object:
    return read_track(_root(path) / "results", "v1", "digits")


def _root(path: Path) -> Path:
    return next(folder for folder in path.parents if (folder / "params.yaml").exists())


RECORDS, POINT = "results/v1/digits", "artefacts/digits/points/rtn/mixer_bits=4_seed=0"
READERS = [
    Reader(
        "weights",
        f"{POINT}/weights.safetensors",
        lambda path: weights_file.decode(path.read_bytes()),
        (ValueError,),
    ),
    Reader(
        "program",
        f"{POINT}/program.pt2",
        archive.refuse_pickles,
        (ValueError, RuntimeError, OSError, BadZipFile),
    ),
    Reader(
        "records",
        f"{RECORDS}/points/rtn.json",
        lambda path: read_record(path, MethodPoints),
        (UserError,),
    ),
    Reader(
        "track", f"{RECORDS}/track.json", lambda path: read_record(path, TrackInfo), (UserError,)
    ),
    Reader("json", f"{RECORDS}/track.json", files.read_json, (UserError,)),
    Reader("predictions", f"{RECORDS}/predictions/rtn.safetensors", _track, (UserError,)),
    Reader(
        "artefact",
        f"{POINT}/weights.safetensors",
        lambda path: store.read_weights(path.parent),
        (UserError,),
    ),
    Reader(
        "point", f"{POINT}/record.json", lambda path: point_folder.read(path.parent), (UserError,)
    ),
    Reader(
        "answers",
        f"{POINT}/predictions.safetensors",
        lambda path: predictions.read(path.parent),
        (UserError,),
    ),
    Reader(
        "learn",
        "artefacts/digits/data/8x8-bilinear-1-center-train/learn.safetensors",
        lambda path: splits.Learn.read(path.parent, torch.device("cpu")),
        (UserError,),
    ),
    Reader(
        "test",
        "artefacts/digits/data/8x8-bilinear-1-center-train/test.safetensors",
        lambda path: splits.TestSplit.read(path.parent),
        (UserError,),
    ),
    Reader(
        "costs",
        f"{RECORDS}/costs/f00d.json",
        lambda path: read_record(path, CostsFile),
        (UserError,),
    ),
    Reader(
        "latency",
        f"{RECORDS}/latency/cpu/f00d.json",
        lambda path: read_latency(path, {}),
        (UserError,),
    ),
    Reader("params", "params.yaml", load_params, (UserError,)),
]
BY_NAME = {reader.name: reader for reader in READERS}


def damaged(content: bytes, generator: random.Random) -> bytes:
    """Return `content` with one to four changes: of bytes, or of the values of its JSON
    where it is, or holds, some.
    """
    for _ in range(generator.randint(1, 4)):
        content = generator.choice(
            [_flipped, _cut, _doubled, _replaced, _with_odd_value, _with_odd_value]
        )(content, generator)
    return content


def _flipped(content: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(content) + 1)
    return content[:place] + bytes([generator.randrange(256)]) + content[place + 1 :]


def _cut(content: bytes, generator: random.Random) -> bytes:
    start, end = sorted(generator.randrange(len(content) + 1) for _ in range(2))
    return (
        content[:start] + content[end:]
        if generator.random() < 0.3
        else content[:start] + content[start + generator.randrange(9) :]
    )


def _doubled(content: bytes, generator: random.Random) -> bytes:
    start, end = sorted(generator.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start : start + min(end - start, 4096)] + content[end:]


def _replaced(content: bytes, generator: random.Random) -> bytes:
    words = [
        b"0",
        b"-1",
        b"99999999999999999999",
        b"null",
        b"\xff" * 8,
        b"{",
        b"]",
        b"\n",
        b'"',
        b"NaN",
        b"1e999",
    ]
    place = generator.randrange(len(content) + 1)
    return content[:place] + generator.choice(words) + content[place + generator.randrange(4) :]


def _with_odd_value(content: bytes, generator: random.Random) -> bytes:
    """Put an odd value anywhere into the JSON that `content` is or, as in a safetensors
    file, begins with after its length.
    """
    start = 8 if content[8:9] == b"{" else 0
    end = start + int.from_bytes(content[:8], "little") if start else len(content)
    try:
        value = json.loads(content[start:end])
    except (ValueError, RecursionError):
        return content
    text = json.dumps(_odd(value, generator)).encode()
    return len(text).to_bytes(8, "little") + text + content[end:] if start else text


def _odd(value: Any, generator: random.Random) -> Any:
    """Return a JSON value with one value in it replaced by an odd one."""
    # JSON within JSON, as in the metadata of a weights file
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.dumps(_odd(json.loads(value), generator))
        except ValueError:
            return generator.choice(ODD)
    if not isinstance(value, (dict, list)) or not value or generator.random() < 0.1:
        return generator.choice(ODD)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = generator.choice(keys)
    copy = value.copy()
    copy[key] = _odd(value[key], generator)
    return copy


def damaged_program(content: bytes, generator: random.Random) -> bytes:
    """Return a program with one entry of its archive damaged, the archive itself
    whole.
    """
    old, file = ZipFile(io.BytesIO(content)), io.BytesIO()
    chosen = generator.choice([name for name in old.namelist() if name.endswith((".json", ".pt"))])
    with ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(
                name, damaged(old.read(name), generator) if name == chosen else old.read(name)
            )
    return file.getvalue()


def example(reader: Reader, whole: bytes, seed: int) -> bytes:
    """Return the damaged file of that seed."""
    generator = random.Random(seed)
    if reader.name == "program" and generator.random() < 0.7:
        return damaged_program(whole, generator)
    return damaged(whole, generator)


def read(reader: Reader, root: Path, content: bytes) -> None:
    """Read `content` in its place in the project `root`; raise what the reader may not
    raise, or AssertionError for what is no line or takes too long.
    """
    path = root / reader.file
    whole = path.read_bytes()
    start = time.monotonic()
    try:
        path.write_bytes(content)
        reader.read(path)
    except reader.refuses as error:
        if isinstance(error, UserError):
            assert "\n" not in str(error) and len(str(error)) < 2000, str(error)[:3000]
    finally:
        path.write_bytes(whole)
    assert time.monotonic() - start < SECONDS, f"took {time.monotonic() - start:.1f} s"


def seeds() -> st.SearchStrategy[int]:
    """Return the seeds of examples."""
    return st.integers(0, 2**32)


def fuzz(root: Path, reader: Reader, seconds: float, seed: int) -> tuple[int, Path | None]:
    """Try examples for `seconds`; return how many were tried, and the file in the
    corpus that broke the reader, if one did.
    """
    whole, end, tried = (root / reader.file).read_bytes(), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        content = example(reader, whole, seed + tried)
        tried += 1
        try:
            read(reader, root, content)
        except Exception as error:
            file = CORPUS / reader.name / f"{hashlib.sha256(content).hexdigest()[:16]}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            print(
                f"{reader.name}: seed {seed + tried - 1}: {type(error).__name__}: "
                f"{str(error)[:200]}",
                flush=True,
            )
            return tried, file
    return tried, None


def main(
    seconds: Annotated[float, typer.Option(min=1, help="for how long, all readers together")] = 600,
    seed: Annotated[int, typer.Option(help="of the first example; the next ones count up")] = 0,
    reader: Annotated[
        list[str] | None,
        typer.Option(help=f"only this one (may be given again): {', '.join(BY_NAME)}"),
    ] = None,
) -> None:
    """Feed damaged files to the readers; exit 1 if one breaks.

    Example: python -m tools.fuzz --reader weights --seconds 60 --seed 7
    """
    chosen = [BY_NAME[name] for name in reader or BY_NAME if name in BY_NAME]
    if len(chosen) < len(reader or []):
        raise typer.BadParameter(f"known readers are: {', '.join(BY_NAME)}")
    with tempfile.TemporaryDirectory() as folder:
        tiny_project.make(Path(folder))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + int(GIBIBYTES * 2**30),) * 2)
        broken = 0
        for one in chosen:
            tried, file = fuzz(Path(folder), one, seconds / len(chosen), seed)
            broken += file is not None
            print(
                f"{one.name}: {tried} examples from seed {seed}: "
                f"{f'broken by {file.relative_to(ROOT)}' if file else 'each accepted or refused'}",
                flush=True,
            )
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    typer.run(main)
