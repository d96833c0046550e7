"""scikit-learn's handwritten digits, which come with the library: 1,797 images of 8x8
pixels in ten classes.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from harness.data import SPLIT_SEED, Dataset, Source, sha256


class Digits(Dataset):
    """Digits as (N, 1, 8, 8) float32, cut into 60 / 10 / 30 %, stratified by label."""

    def load(self) -> Source:
        """Read the file that scikit-learn has."""
        # here, for it takes a second to import, which no worker needs
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        bunch = load_digits()
        labels = bunch.target.astype(np.int64)
        rest, test = train_test_split(
            np.arange(len(labels)), test_size=0.3, stratify=labels, random_state=SPLIT_SEED
        )
        train, validation = train_test_split(
            rest, test_size=1 / 7, stratify=labels[rest], random_state=SPLIT_SEED
        )
        return Source(
            title="scikit-learn digits (UCI, 1,797 images of 8x8)",
            images=bunch.images[:, None].astype(np.float32) / 16,  # pixels are 0..16
            labels=labels,
            train=train,
            validation=validation,
            test=test,
            sha256={
                "images": sha256(bunch.images.astype(np.uint8)),
                "labels": sha256(labels.astype(np.uint8)),
            },
            classes=10,
        )

    def closed(self) -> list[Path]:
        """Return scikit-learn's folder of datasets."""
        found = find_spec("sklearn")
        return [
            Path(place) / "datasets" / "data"
            for place in (found.submodule_search_locations if found else None) or []
        ]
