"""Which methods a trial runs, at which settings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args

import yaml

from harness.run import registry
from leaderboard.records.errors import UserError, unknown
from leaderboard.records.params import Params
from methods import Needs

CLASSES: tuple[Needs, ...] = get_args(Needs)
SETTING = re.compile(r"(\w+)(?::(.+))?")


def methods_of(
    named: Iterable[str], every: bool, budget: Needs, defaults: Params
) -> dict[str, list[dict[str, Any]]]:
    """Return the methods and settings of a trial: those named as `gptq` or
    `gptq:bits=4,percdamp=0.1`, or else all of the budget class or the usual few; raise
    UserError for a budget, a method or a setting that there is not.
    """
    if budget not in CLASSES:
        raise unknown("budget", budget, CLASSES)
    found: dict[str, list[dict[str, Any]]] = {}
    for text in named:
        name, setting = _read(text)
        usual = defaults.plans[name].settings if name in defaults.plans else [{}]
        found.setdefault(name, []).extend(usual if setting is None else [setting])
    if found:
        return {name: distinct(name, settings) for name, settings in found.items()}
    if not every and budget == "calibration":
        return {name: plan.settings for name, plan in defaults.trial.items()}
    return {
        name: plan.settings
        for name, plan in defaults.methods.items()
        if CLASSES.index(registry.load(name).needs) <= CLASSES.index(budget)
    }


def distinct(name: str, settings: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the settings of a method without those that are another in other words, as
    8 and 8.0 are.
    """
    found: list[dict[str, Any]] = []
    for setting in settings:
        made = registry.configure(name, setting)
        if all(registry.configure(name, other) != made for other in found):
            found.append(setting)
    return found


def setting_of(name: str, pairs: Iterable[str]) -> dict[str, Any]:
    """Return the setting of a method that is written as `field=value`, checked; raise
    UserError for a method or a setting that there is not.
    """
    registry.load(name)
    split = [pair.partition("=") for pair in pairs]
    if any(not value for _, _, value in split):
        raise UserError(f"method '{name}': a setting is written field=value")
    setting = {field: number_or(yaml.safe_load(value)) for field, _, value in split}
    registry.configure(name, setting)
    return setting


def number_or(value: Any) -> Any:
    """Return a number where YAML 1.1 sees a text, as in 1e-3."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _read(text: str) -> tuple[str, dict[str, Any] | None]:
    """Return the method and the setting of `name:field=value,field=value`."""
    match = SETTING.fullmatch(text)
    if match is None:
        raise UserError(f"method '{text}' is not written as name or name:field=value,field=value")
    name, fields = match.groups()
    registry.load(name)
    return name, None if fields is None else setting_of(name, fields.split(","))
