"""stub until the colleague's file is merged"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image


@dataclass(frozen=True)
class ImageFiles:
    paths: tuple[Path, ...]

    def decode(self, index: int) -> Image.Image:
        return Image.open(self.paths[index]).convert("RGB")
