"""What all parts of params.yaml have in common: how a mapping is checked, and what a
name may be.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", value):
        raise ValueError(
            "names are lower-case letters, digits and '_' (they name DVC stages, which use '-' "
            "between them)"
        )
    return value


JOIN = "__"  # between the methods of a chain


Name = Annotated[str, AfterValidator(_name)]


class Strict(BaseModel):
    """A frozen mapping of finite numbers that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
