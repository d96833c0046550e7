"""The counter's listing of a model, operator by operator."""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import timm
import torch
from tabulate import tabulate

from harness.point import counter
from leaderboard.records.errors import unknown


def of_timm_model(name: str) -> counter.Count:
    """Return the operators of one image of timm model `name` at its default input
    size.
    """
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    model = timm.create_model(name).eval()
    return counter.count(
        model, torch.zeros(1, *timm.data.resolve_model_data_config(model)["input_size"])
    )


def text(count: counter.Count, top: int) -> str:
    """Return a table of the `top` costliest operators, and the sum of all."""
    costliest = sorted(count.operators, key=lambda operator: -operator.macs)[:top]
    rows = [
        (
            operator.name,
            " ".join("x".join(map(str, shape)) for shape in operator.shapes),
            operator.macs,
        )
        for operator in costliest
    ]
    table = tabulate(rows, headers=["operator", "shapes", "MACs"], intfmt=",")
    return (
        f"{table}\n{len(count.operators)} operators, {count.macs:,} MACs, {2 * count.macs:,} "
        "FLOPs per image"
    )
