"""Bad arguments of a Python call end in a ValueError of one line, as those of a command
end in a line on stderr.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.point.counter import UnknownOperator
from leaderboard.records.errors import BrokenContract, UserError


@contextmanager
def value_errors() -> Iterator[None]:
    """Raise ValueError for what the harness says of bad input, and of a model or method
    that does not keep the contract.
    """
    try:
        yield
    except (UserError, BrokenContract, UnknownOperator) as error:
        raise ValueError(str(error)) from error
