"""CIFAR-10: 60,000 photographs of 32x32 pixels in ten classes, read from the data
folder and downloaded where it is not there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.data import SPLIT_SEED, Dataset, Source, _cifar10_files, sha256
from harness.data.folder import data_folder


class Cifar10(Dataset):
    """CIFAR-10 as (60,000, 3, 32, 32) uint8: its own test images, and a tenth of each
    class of its train images for validation.
    """

    def load(self) -> Source:
        """Read the first of archive, parquet shards and download that there is.

        Raises UserError where the files are incomplete or damaged, and where there are
        none and they cannot be downloaded.
        """
        # here, for it takes a second to import, which no worker needs
        from sklearn.model_selection import train_test_split

        title, train, test = _cifar10_files.read(data_folder())
        index = np.arange(len(train.labels) + len(test.labels))
        inside, outside = np.split(index, [len(train.labels)])
        rest, validation = train_test_split(
            inside, test_size=0.1, stratify=train.labels, random_state=SPLIT_SEED
        )
        return Source(
            title=title,
            images=np.ascontiguousarray(
                np.concatenate([train.images, test.images]).transpose(0, 3, 1, 2)
            ),
            labels=np.concatenate([train.labels, test.labels]).astype(np.int64),
            train=rest,
            validation=validation,
            test=outside,
            sha256={
                "train images": sha256(train.images),
                "train labels": sha256(train.labels),
                "test images": sha256(test.images),
                "test labels": sha256(test.labels),
            },
            classes=10,
        )

    def closed(self) -> list[Path]:
        """Return all places of the data folder in which it is looked for."""
        return [Path(name) for name in _cifar10_files.PLACES]
