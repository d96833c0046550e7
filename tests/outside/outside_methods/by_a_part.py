"""A method that does nothing wrong by itself, but by a part of its package."""

from dataclasses import dataclass

from . import part
from .works import OutsideScale


@dataclass(frozen=True)
class ByAPart(OutsideScale):
    def compress(self, model, data):
        part.take_note()
        return super().compress(model, data)
