"""What an artefact answered: class, confidence and rank of the label, on cases counted
by hand, with ties.
"""

from math import exp

import numpy as np
import pytest
import torch

from harness.point import predictions
from leaderboard.records.errors import UserError

CASES = [  # logits, label, class, rank of the label
    ([2, 1, 0], 0, 0, 0),
    ([2, 1, 0], 2, 0, 2),
    ([1, 1, 0], 0, 0, 0),
    ([1, 1, 0], 1, 0, 1),  # the lower of two equal classes goes before
    ([0, 3, 3], 1, 1, 0),
    ([0, 3, 3], 2, 1, 1),
    ([1, 1, 1], 2, 0, 2),
    ([5, 0, 4], 1, 0, 2),
]
LOGITS, LABELS = (
    torch.tensor([case[0] for case in CASES], dtype=torch.float32),
    torch.tensor([case[1] for case in CASES]),
)


def test_class_and_rank_are_those_counted_by_hand():
    found = predictions.predictions(LOGITS, LABELS)
    assert found["class"].tolist() == [case[2] for case in CASES] and found["rank"].tolist() == [
        case[3] for case in CASES
    ]
    assert {part: values.dtype for part, values in found.items()} == {
        "class": np.uint16,
        "confidence": np.float16,
        "rank": np.uint16,
    }


def test_confidence_is_the_softmax_of_the_class():
    e = exp(1)
    expected = (
        [e * e / (e * e + e + 1)] * 2
        + [e / (2 * e + 1)] * 2
        + [e**3 / (2 * e**3 + 1)] * 2
        + [1 / 3, e**5 / (e**5 + e**4 + 1)]
    )
    np.testing.assert_allclose(
        predictions.predictions(LOGITS, LABELS)["confidence"], expected, rtol=2**-11
    )


def test_among_many_classes_full_of_ties_rank_is_the_place_in_a_stable_order_and_none_is_cut_off():
    generator = torch.Generator().manual_seed(0)
    logits, labels = (
        torch.randint(0, 5, (64, 1000), generator=generator).float(),
        torch.randint(0, 1000, (64,), generator=generator),
    )
    found = predictions.predictions(logits, labels)
    order = [np.argsort(-row, kind="stable").tolist() for row in logits.numpy()]
    assert found["class"].tolist() == [row[0] for row in order]
    assert found["rank"].tolist() == [
        row.index(label) for row, label in zip(order, labels.tolist(), strict=True)
    ]
    assert (
        found["rank"].max() > 255
        and ((found["rank"] == 0) == (found["class"] == labels.numpy())).all()
    )


def test_what_is_written_is_read_and_a_file_without_a_part_is_refused_in_one_line(tmp_path):
    found = predictions.predictions(LOGITS, LABELS)
    predictions.write(tmp_path, found)
    assert {part: values.tolist() for part, values in predictions.read(tmp_path).items()} == {
        part: values.tolist() for part, values in found.items()
    }
    predictions.write(tmp_path, {part: values for part, values in found.items() if part != "rank"})
    with pytest.raises(
        UserError,
        match=r"predictions.safetensors cannot be read \(KeyError 'rank'\): delete it and run its "
        r"stage "
        r"again",
    ):
        predictions.read(tmp_path)
