"""The models of a track: timm's by name, and ours, which a file of this folder puts
into timm's registry when it is imported.
"""

from __future__ import annotations

import methods  # noqa: F401  # isort: skip  (before timm: see methods/parts/torchvision.py)

import importlib
import pkgutil

import timm


def register() -> None:
    """Import the files of this folder, so that timm knows the models of ours; none is
    imported twice.
    """
    for file in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(file.name)


def home(name: str) -> str | None:
    """Return the module of ours that defines the model `name`, or None for one of
    timm's own and for one that timm does not know.
    """
    register()
    module = timm.model_entrypoint(name).__module__ if timm.is_model(name) else ""
    return module if module.startswith(f"{__name__}.") else None
