"""Imports of all kinds."""

from __future__ import annotations

import math as m
from typing import TYPE_CHECKING

from corpus import inner, syntax
from corpus.inner import shared
from corpus.inner.shared import SCALE as FACTOR
from corpus.inner.shared import scaled

if TYPE_CHECKING:
    from corpus.syntax import Shape


def area(shape: Shape) -> float:
    from corpus.inner.shared import scaled as again

    return scaled(m.pi, by=FACTOR) + shared.scaled(again(shape.side)) + len(inner.__name__) + syntax.count(3)
