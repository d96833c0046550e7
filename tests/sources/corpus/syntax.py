"""A bit of all that Python 3.11 can write."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Generic, TypeVar

T = TypeVar("T", bound="Shape")
NUMBERS = (1, 1.5, 1e-300, float("inf"), 0x10, 1_000, 2j, -0.0, True, None, ...)
TEXTS = ("a" "b", 'c"d', "é\n\x00", b"\xff\x00", r"\d", "", u"u", """long
text""")


@dataclass(frozen=True, order=True)
class Shape(Generic[T]):
    """A class with fields."""

    side: Annotated[float, "cm"] = 1.0
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Nothing but words."""

    @property
    def text(self) -> str:
        x = self.side
        return f"{x!r:>{10}}{x=}" f"-{{{x:.3f}}}-" "tail" f"{'inner' + f'{x:{x}}'}"


def count(n: int, /, *args: int, key: int = 0, **rest: int) -> int:
    total = 0
    while (n := n - 1) > 0:
        if n % 2:
            continue
        total += [a * b for a in range(n) if a for b in args][-1:] != []
    else:
        total **= 2
    return total if key or not rest else -total


def chosen(value: object) -> Iterator[object]:
    match value:
        case {"a": [first, *_], **others} if first:
            yield first, others
        case Shape(side=1.0) | str() as found:
            yield from (found,)
        case _:
            yield lambda *a, k=1, **kw: (a, k, kw)


async def waited() -> dict[str, int]:
    async with asyncio.timeout(1) as limit, asyncio.Lock():
        async for x in limit:
            await x
    try:
        return {k: v async for k, v in limit}
    except* (ValueError, TypeError) as group:
        raise RuntimeError from group
    finally:
        del limit


def unpacked() -> None:
    global NUMBERS
    first, *rest = NUMBERS
    assert first, "said"
    NUMBERS = (*rest, first)
    print(NUMBERS[1:2, ..., ::-1], {*rest}, {**{}}, sep="")
