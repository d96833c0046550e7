"""A method that looks for the test split; it is refused before this is imported."""

import importlib
from dataclasses import dataclass

from outside_methods.works import OutsideScale

raise RuntimeError("imported all the same")


@dataclass(frozen=True)
class OpensFiles(OutsideScale):
    def compress(self, model, data):
        loader = importlib.import_module("harness.data.splits")
        with open("artefacts/digits/data/test.safetensors", "rb") as file:  # noqa: PTH123
            return loader.decode(file.read())
