"""Chains: methods run one after another on the same model, written `first__second` and
set by `first.field: value`.

Each step gets what the one before it returned, with its own budget of training; what
the steps cost is added up. The steps know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from torch import nn

from leaderboard.records.errors import UserError, unknown
from leaderboard.records.params_base import JOIN
from methods import Data, Method, Needs


class CannotGoOn(Exception):
    """A step of a chain cannot compress what the steps before it made."""


@dataclass(frozen=True)
class Chain(Method):
    """The methods `steps`, each on the model that the one before it returned."""

    steps: tuple[Method, ...]

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        """Run the steps; raise CannotGoOn where one cannot compress what it is
        given.
        """
        for step in self.steps:
            reason = step.skip(model)
            if reason is not None:
                raise CannotGoOn(
                    f"{type(step).__name__} cannot compress what it is given: {reason}"
                )
            model = step.compress(model, data).eval()
        return model

    def skip(self, model: nn.Module) -> str | None:
        """Return the first reason for which a step cannot compress dense itself."""
        return next(
            (reason for step in self.steps if (reason := step.skip(model)) is not None), None
        )


def steps_of(name: str) -> list[str]:
    """Return the methods of a chain in order; a method's own name is the only one of
    its own.
    """
    return name.split(JOIN)


def chained(classes: Sequence[type[Method]]) -> type[Chain]:
    """Return the class of the chain of `classes`: what they declare in order, and the
    most demanding of their needs.
    """
    about: dict[str, object] = {
        "family": " → ".join(dict.fromkeys(method.family for method in classes)),
        "paper": "; ".join(dict.fromkeys(method.paper for method in classes)),
        "needs": max((method.needs for method in classes), key=get_args(Needs).index),
        "realisation": "+".join(dict.fromkeys(method.realisation for method in classes)),
        "stochastic": any(method.stochastic for method in classes),
    }
    return type("Chain", (Chain,), about)


def split(name: str, setting: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the setting of each step of chain `name`; raise UserError for a key that
    is not `step.field`.
    """
    steps: dict[str, dict[str, Any]] = {step: {} for step in steps_of(name)}
    for key, value in setting.items():
        step, dot, field = key.partition(".")
        if step not in steps:
            raise unknown(f"step of chain {name}", step, steps)
        if not dot:
            raise UserError(
                f"setting '{key}' of chain {name} names no field: write {step}.FIELD: VALUE"
            )
        steps[step][field] = value
    return steps
