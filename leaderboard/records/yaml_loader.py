"""The loader of params.yaml: plain values, every key once."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from leaderboard.records.errors import UserError, describe, one_line

Document = TypeVar("Document", bound=BaseModel)


class OnceLoader(yaml.SafeLoader):
    """A loader of plain values that refuses a key that stands twice, of which YAML
    would silently take the last.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping; raise ConstructorError if a key stands twice in it."""
        keys = [
            key.value
            for key, _ in node.value
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"
        ]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; raise UserError if it cannot be read, is no
    YAML, or names a key twice.
    """
    try:
        return yaml.load(path.read_text(), OnceLoader)
    except FileNotFoundError:
        raise UserError(
            f"{path} not found: run this in the folder that holds params.yaml"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {one_line(str(error))}") from None


def validated(path: Path, kind: type[Document], content: Any) -> Document:
    """Return the content of the file `path` as a `kind`; raise UserError naming file
    and key if it is none.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path} does not validate: {describe(error)}") from None
