"""Names of pages: where the site has a table, a method and a model."""

from __future__ import annotations

import hashlib
import re

LONGEST = 100  # characters; a file name may have 255 bytes


def page_name(name: str) -> str:
    """Return `name` if it is a plain file name, else its plain characters and a hash
    that keeps it apart from others.
    """
    if re.fullmatch(rf"[A-Za-z0-9_-]{{1,{LONGEST}}}", name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[: LONGEST - 20]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def method_page(method: str) -> str:
    """Return the path of a method's page below the site."""
    return f"methods/{page_name(method)}.html"


def model_page(track: str, model: str) -> str:
    """Return the path of a model's page below the site."""
    return f"models/{page_name(f'{track}_{model}')}.html"


def table_page(track: str, hardware: str) -> str:
    """Return the path of a table's page below the site."""
    return f"{page_name(track)}/{page_name(hardware)}.html"
