"""What the others use."""

SCALE: float = 2.0


def scaled(x: float, *, by: float = SCALE) -> float:
    """Return x times `by`."""
    return x * by
