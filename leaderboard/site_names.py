"""Names of pages: what a track, method or model is called as a file."""

from __future__ import annotations

import hashlib
import re

LONGEST = 100  # characters; a file name may have 255 bytes


def page_name(name: str) -> str:
    """Return `name` if it is a plain file name, else its plain characters and a hash that keeps it apart from others."""
    if re.fullmatch(rf"[A-Za-z0-9_-]{{1,{LONGEST}}}", name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[: LONGEST - 20]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
