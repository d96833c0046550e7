"""Labels of several splits as timm's readers give them, as numbers of one list of
classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.data.timm_readers.images import Part
from leaderboard.records.errors import UserError, one_line


def numbered(
    name: str, parts: Mapping[str, Part], listed: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the label of each image, (N,) int64, of the dataset `name`, and the names of
    the classes in that order: as listed, or as the reader has them, or sorted where
    labels are names or splits have other classes; () where nobody names them.

    Raises UserError for an image without a label or with several, and for a class that
    is not listed.
    """
    for split, part in parts.items():
        _check(f"{name} ({split})", part)
    labels = [label for part in parts.values() for label in part.labels]
    numbers = all(isinstance(label, int) for label in labels)
    own = {part.classes for part in parts.values()}
    if numbers and (own == {()} or (len(own) == 1 and not listed)):
        classes = tuple(listed) or own.pop()
        if classes and max(labels) >= len(classes):
            raise UserError(
                f"{name} has the label {max(labels)}, and {len(classes):,} classes: give a list "
                "with all of them"
            )
        return np.array(labels, np.int64), classes
    if any(len(set(one)) < len(one) for one in own):
        raise UserError(f"{name} calls two classes the same, so that no list can order them")
    names = [
        part.classes[label] if isinstance(label, int) else label
        for part in parts.values()
        for label in part.labels
    ]
    classes = tuple(listed) or tuple(sorted({*names, *(one for some in own for one in some)}))
    number = {one: index for index, one in enumerate(classes)}
    if strange := next((one for one in names if one not in number), None):
        raise UserError(
            f"class '{one_line(strange)[:40]}' of {name} is not in the list of classes, which has "
            f"{len(classes):,} lines like '{one_line(classes[0])[:40]}': give a list with its names"
        )
    return np.array([number[one] for one in names], np.int64), classes


def _check(name: str, part: Part) -> None:
    """Raise UserError unless each image has one label, which its class has if classes
    have names.
    """
    none = [row for row, label in enumerate(part.labels) if not _is_label(label)]
    if none:
        found = one_line(repr(part.labels[none[0]]))[:40]
        raise UserError(
            f"{name} has {len(none):,} of {len(part.labels):,} images without one label each, like "
            f"{found}: accuracy needs labels, name another split or another `target_key`"
        )
    last = max((label for label in part.labels if isinstance(label, int)), default=-1)
    if part.classes and last >= len(part.classes):
        raise UserError(
            f"{name} has the label {last}, and names for {len(part.classes):,} classes: mend it"
        )


def _is_label(label: Any) -> bool:
    return isinstance(label, str) or (
        isinstance(label, int) and not isinstance(label, bool) and label >= 0
    )
