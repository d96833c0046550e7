"""Hardware profiles of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from leaderboard.records.params_base import Name, Strict


class HardwareParams(Strict):
    """A hardware profile: how latency is measured, on whatever machine can serve it;
    `match`: a part of the name of its processor (cuda: of its GPU).
    """

    device: Literal["cpu", "cuda"]
    runtime: Name  # a file of harness/latency/runtimes, which says what it serves
    precision: Literal["fp32", "bf16"] = "fp32"
    match: str = ""
    threads: PositiveInt
    batches: Annotated[list[PositiveInt], Field(min_length=1)]
    realisations: list[Name] | None = None  # what is timed beside dense; None: all
    rounds: Annotated[int, Field(ge=5)]
    warmup_rounds: Annotated[int, Field(ge=1)]
