"""The datasets of the tracks: what exactly was found of each, and its fixed split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.data import cifar10_files
from harness.run.paths import data_folder
from leaderboard.records.errors import unknown

SPLIT_SEED = 0  # fixes which image is in which split, and the calibration images; changing it is a new version of the track


@dataclass(frozen=True)
class Source:
    """A dataset as it was found, with its fixed split.

    images: (N, C, H, W) uint8, or float32 in [0, 1]; labels: (N,) int64; train, validation, test: indices into both, disjoint.
    sha256: of the raw uint8 arrays before any conversion, images as (N, H, W, C) or (N, H, W).
    """

    title: str  # how results name it
    images: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    sha256: dict[str, str]


def digits() -> Source:
    """Return scikit-learn's handwritten digits as (N, 1, 8, 8) float32, cut into 60 / 10 / 30 %, stratified by label."""
    from sklearn.datasets import load_digits  # here, for workers need not wait for scikit-learn
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    rest, test = train_test_split(np.arange(len(labels)), test_size=0.3, stratify=labels, random_state=SPLIT_SEED)
    train, validation = train_test_split(rest, test_size=1 / 7, stratify=labels[rest], random_state=SPLIT_SEED)
    return Source(
        title="scikit-learn digits (UCI, 1,797 images of 8x8)",
        images=bunch.images[:, None].astype(np.float32) / 16,  # pixels are 0..16
        labels=labels,
        train=train,
        validation=validation,
        test=test,
        sha256={"images": _sha256(bunch.images.astype(np.uint8)), "labels": _sha256(labels.astype(np.uint8))},
    )


def cifar10() -> Source:
    """Return CIFAR-10 as (60,000, 3, 32, 32) uint8: its own test images, and a tenth of each class of its train images for validation.

    Raises UserError where the files are incomplete or damaged, and where there are none and they cannot be downloaded.
    """
    from sklearn.model_selection import train_test_split

    title, train, test = cifar10_files.read(data_folder())
    index = np.arange(len(train.labels) + len(test.labels))
    inside, outside = np.split(index, [len(train.labels)])
    rest, validation = train_test_split(inside, test_size=0.1, stratify=train.labels, random_state=SPLIT_SEED)
    return Source(
        title=title,
        images=np.ascontiguousarray(np.concatenate([train.images, test.images]).transpose(0, 3, 1, 2)),
        labels=np.concatenate([train.labels, test.labels]).astype(np.int64),
        train=rest,
        validation=validation,
        test=outside,
        sha256={
            "train images": _sha256(train.images),
            "train labels": _sha256(train.labels),
            "test images": _sha256(test.images),
            "test labels": _sha256(test.labels),
        },
    )


DATASETS: dict[str, Callable[[], Source]] = {"digits": digits, "cifar10": cifar10}


def load(name: str) -> Source:
    """Return the dataset `name`; raise UserError if it is unknown or cannot be had."""
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    return DATASETS[name]()


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
