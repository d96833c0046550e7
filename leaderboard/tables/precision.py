"""How numbers are printed: at a fixed precision, and no finer than the test split can
tell apart.
"""

from __future__ import annotations


def accuracy_digits(images: int) -> int:
    """Return the decimals of an accuracy or a difference in percent on `images` test
    images: two from 10,000 on, where an image is 0.01 points.
    """
    return 2 if images >= 10_000 else 1


def number(value: float | None, digits: int, scale: float = 1.0) -> str:
    """Return `value * scale` at a fixed precision, never as negative zero; nothing for
    None.
    """
    return "" if value is None else f"{round(value * scale, digits) + 0.0:.{digits}f}"
