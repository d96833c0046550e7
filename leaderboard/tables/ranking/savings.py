"""What a compressed model can save."""

from __future__ import annotations

from enum import StrEnum


class Saving(StrEnum):
    """A cost of a model; every gain is dense / compressed."""

    BYTES = "bytes"
    MACS = "macs"
    LATENCY = "latency"  # at the smallest batch
