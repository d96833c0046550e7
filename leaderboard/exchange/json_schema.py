"""The form of results as JSON Schema, for readers in other languages, made of the
models that read them here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from leaderboard.exchange.labels import Labels
from leaderboard.exchange.manifest import Manifest
from leaderboard.records.latency import Report
from leaderboard.records.schema import CostsFile, MethodPoints, TrackInfo

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MODELS: Mapping[str, type[BaseModel]] = {
    "track": TrackInfo,
    "points": MethodPoints,
    "costs": CostsFile,
    "latency": Report,
    "manifest": Manifest,
    "labels": Labels,
}


def schema_texts() -> dict[str, str]:
    """Return the JSON Schema of every file of results and bundles, by file name."""
    schemas = {
        name: {"$schema": DIALECT} | _on_one_line(model.model_json_schema())
        for name, model in MODELS.items()
    }
    return {
        f"{name}.schema.json": json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
        for name, schema in schemas.items()
    }


def _on_one_line(value: Any) -> Any:
    """Return a schema whose texts, which are docstrings, are not broken into lines."""
    if isinstance(value, dict):
        return {name: _on_one_line(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_on_one_line(part) for part in value]
    return " ".join(value.split()) if isinstance(value, str) else value
