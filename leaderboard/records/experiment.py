"""The little that the tables need of params.yaml: the version and the order of things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from leaderboard.records.errors import UserError, describe
from leaderboard.records.files import read_text


class Profile(BaseModel):
    """The batch sizes of a hardware profile."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    batches: tuple[PositiveInt, ...] = (1,)


class Experiment(BaseModel):
    """The version, and tracks, methods and hardware in the order in which they are shown."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    version: str | None = None
    tracks: dict[str, Any] = {}
    methods: dict[str, Any] = {}
    chains: dict[str, Any] = {}
    hardware: dict[str, Profile] = {}
    hardware_on_request: dict[str, Profile] = {}

    def chosen_version(self, asked: str | None) -> str:
        """Return the version asked for, else that of params.yaml."""
        version = asked or self.version
        if version is None:
            raise UserError("no version: params.yaml names none; give --version v1")
        return version


def read_experiment(path: Path) -> Experiment:
    """Read params.yaml; without the file nothing is ordered and the version must be given."""
    if not path.exists():
        return Experiment()
    try:
        return Experiment.model_validate(yaml.safe_load(read_text(path)) or {})
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise UserError(f"{path} does not validate: {describe(error)}") from None


def in_order(names: list[str], order: list[str]) -> list[str]:
    """Return `names` as `order` has them, the others after them by name."""
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))
