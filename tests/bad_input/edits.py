"""Ways to damage a file of a project; each returns the function that does it to a
project's root.
"""

import copy
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from benchmarks.testbed.tiny_project import PARAMS

Damage = Callable[[Path], None]
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]\n"
    for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)
DROP = object()  # in place of a value: the key is taken away


@dataclass(frozen=True)
class Case:
    """Bad input: what is damaged, the command that meets it, and words that its one
    line must hold.
    """

    name: str
    damage: Damage
    command: str
    said: str


def nothing(root: Path) -> None:
    """Leave the project whole: the command itself is bad."""


def changed(content: Any, keys: list[Any], value: Any) -> Any:
    """Return a copy of `content` with the value below `keys` replaced, or dropped."""
    content = copy.deepcopy(content)
    place = reduce(lambda part, key: part[key], keys[:-1], content)
    if value is DROP:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return content


def params(dotted: str, value: Any) -> Damage:
    """Replace the value below the `/`-joined keys of params.yaml."""
    return text(
        "params.yaml", yaml.safe_dump(changed(PARAMS, dotted.split("/"), value), sort_keys=False)
    )


def text(name: str, content: str) -> Damage:
    """Write `content` in place of a file."""
    return raw(name, content.encode())


def raw(name: str, content: bytes) -> Damage:
    """Write `content` in place of a file, whether it is there or not."""

    def damage(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return damage


def cut(name: str, keep: float) -> Damage:
    """Keep the first part of a file."""

    def damage(root: Path) -> None:
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: int(keep * len(whole))])

    return damage


def gone(name: str) -> Damage:
    """Delete a file."""
    return lambda root: (root / name).unlink()


def folder(name: str) -> Damage:
    """Put a folder where a file belongs."""

    def damage(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        (root / name).mkdir()

    return damage


def field(name: str, *keys_and_value: Any) -> Damage:
    """Replace the value below the keys of a JSON file."""
    *keys, value = keys_and_value

    def damage(root: Path) -> None:
        (root / name).write_text(
            json.dumps(changed(json.loads((root / name).read_text()), keys, value))
        )

    return damage


def replaced(name: str, old: bytes, new: bytes) -> Damage:
    """Replace bytes of a file."""

    def damage(root: Path) -> None:
        content = (root / name).read_bytes()
        assert old in content
        (root / name).write_bytes(content.replace(old, new, 1))

    return damage


def header(name: str, length: int) -> Damage:
    """Let the header of a safetensors file claim another length."""

    def damage(root: Path) -> None:
        (root / name).write_bytes(struct.pack("<Q", length) + (root / name).read_bytes()[8:])

    return damage
