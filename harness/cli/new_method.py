"""`shrinkmark new NAME`: the skeleton of a method, its test, and its line in
params.yaml.
"""

from __future__ import annotations

import re
from pathlib import Path

from harness.run import registry
from leaderboard.records import files
from leaderboard.records.errors import UserError
from leaderboard.records.params_base import JOIN

METHOD = '''"""TITLE: one sentence on what the method does.

Authors, "title", venue year, arXiv id.

The equation or the idea, in the paper's letters.

Arguments:
    strength: what it sets

Assumed:
    - What the paper does not tell and this file takes to be so. (None: leave it out.)

Checked against:
    - The worked example in tests/methods/test_NAME.py (name a better oracle when there
      is one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from methods import Data, Method


@dataclass(frozen=True)
class CLASS(Method):
    """Say in one imperative sentence what compress() does with `strength`."""

    strength: Annotated[float, Field(ge=0, le=1)] = 0.5

    family = "pruning"
    paper = "authors, venue year, arXiv id"
    needs = "data-free"  # data-free, calibration, labels, fine-tune or scratch
    realisation = "masked"  # structural (the default), packed, kernel, masked or dynamic
    stochastic = False  # the default: does the result depend on the seed?
    identity = {"strength": 0.0}  # must equal dense
    strongest = {"strength": 1.0}  # must still keep the contract

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        raise NotImplementedError("compress() of NAME is yet to be written")
'''

TEST = '''"""TITLE: a worked example, a limiting case, and the paper's claim in miniature."""

import pytest

from harness.run import registry


def test_a_worked_example_by_hand():
    pytest.fail("write down a small case computed by hand")


def test_strength_zero_leaves_the_model_as_it_is(make_model, make_data):
    model = make_model("vit")
    registry.configure("NAME", {"strength": 0.0}).compress(model, make_data("vit"))
    pytest.fail("compare the weights with dense, or name the limiting case of this method")


def test_the_claim_of_the_paper_in_miniature():
    pytest.fail("show what the paper claims on a case of a few lines")
'''


def create(root: Path, name: str) -> list[Path]:
    """Write methods/<name>.py and tests/methods/test_<name>.py and append the method to
    params.yaml; return what was written.

    Raises UserError if the name is not a legal new one.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(
            f"'{name}' cannot name a method: use lower-case letters, digits and '_', a letter first"
        )
    method, test, params = (
        root / "methods" / f"{name}.py",
        root / "tests" / "methods" / f"test_{name}.py",
        root / "params.yaml",
    )
    if JOIN in name:
        raise UserError(
            f"'{name}' cannot name a method: '{JOIN}' stands between the methods of a chain; use "
            "'_'"
        )
    if name in registry.names() or method.exists() or test.exists():
        raise UserError(f"there is a method or a test called '{name}' already: choose another name")
    extended = _with_method(params.read_text(), name)
    for path, template in ((method, METHOD), (test, TEST)):
        title = name.replace("_", " ").capitalize()
        text = (
            template.replace("CLASS", title.title().replace(" ", ""))
            .replace("TITLE", title)
            .replace("NAME", name)
        )
        files.write_bytes(path, text.encode())
    files.write_bytes(params, extended.encode())
    return [method, test, params]


def _with_method(text: str, name: str) -> str:
    """Return params.yaml with one more method at the end of `methods`, everything else
    as it stands.
    """
    lines = text.splitlines(keepends=True)
    try:
        start = lines.index("methods:\n") + 1
    except ValueError:
        raise UserError("params.yaml has no line 'methods:': add the method by hand") from None
    end = next(
        (number for number in range(start, len(lines)) if re.match(r"\S", lines[number])),
        len(lines),
    )
    while not lines[end - 1].strip():
        end -= 1
    return "".join(
        [
            *lines[:end],
            f"  {name}:\n    settings: [{{strength: 0.25}}, {{strength: 0.5}}, {{strength: "
            f"0.75}}]\n",
            *lines[end:],
        ]
    )
