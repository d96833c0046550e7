"""What a setting promises of the size of the weights it touches, before anything is
written.
"""

from __future__ import annotations

from collections.abc import Mapping

BITS = ("bits", "average_bits", "base_bits")  # of a weight; an index may stand for several
# what else makes a file smaller, by how much no setting says
OTHER = {"macs", "rho", "parameters", "cost", "index_bits"}
FLOAT = 32


def claimed_ratio(setting: Mapping[str, object]) -> float | None:
    """Return 32 / bits, 1 / (1 - sparsity), m / n, or their product where a chain names
    several; None where the setting names none of them, or more.

    Scales, indices, headers and the layers that a method leaves alone are what makes a
    file larger than that.
    """
    if any(name.rpartition(".")[2] in OTHER for name in setting):
        return None
    numbers = {
        name.rpartition(".")[2]: float(value)
        for name, value in setting.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    parts = [FLOAT / numbers[name] for name in BITS if numbers.get(name)]
    if 0 <= numbers.get("sparsity", -1) < 1:
        parts.append(1 / (1 - numbers["sparsity"]))
    elif numbers.get("n") and numbers.get("m"):
        parts.append(numbers["m"] / numbers["n"])
    ratio = 1.0
    for part in parts:
        ratio *= part
    return ratio if parts else None
