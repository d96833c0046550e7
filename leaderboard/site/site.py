"""The static site: its pages, the libraries they use, and a folder that is either the
whole site or the one before.
"""

from __future__ import annotations

import os
import re
import shutil
from importlib.resources import files
from pathlib import Path

from leaderboard.records.errors import UserError
from leaderboard.records.files import write_bytes, write_text
from leaderboard.records.outline import Outline
from leaderboard.site.archive import read_archive
from leaderboard.site.docstrings import read_docstrings
from leaderboard.site.pages import Site, pages
from leaderboard.site.tracks import read_site_tracks

ASSETS = "assets"
# tells GitHub Pages to take the files as they are, and this command that a folder is
# its own
MARK = ".nojekyll"


def build_site(results: Path, version: str, into: Path, outline: Outline, methods: Path) -> Path:
    """Write the site of a version's results into the folder `into`, which it replaces;
    return the page to open.

    methods: the folder of the methods' files, for what they say of themselves.
    """
    if into.exists() and not (into / MARK).is_file() and (not into.is_dir() or any(into.iterdir())):
        raise UserError(
            f"{into} exists and is not a site of this command: name an empty or new folder with "
            "--into"
        )
    return write_site(
        Site(
            version,
            read_site_tracks(results, version, outline),
            read_docstrings(methods),
            read_archive(results),
        ),
        into,
    )


def write_site(site: Site, into: Path) -> Path:
    """Write pages and assets beside `into` and move them there in one step; return the
    page to open.
    """
    staged = into.with_name(f".{into.name}.{os.getpid()}")
    try:
        for name, text in (pages(site) | _assets() | {MARK: ""}).items():
            write_text(staged / name, text)
        for file in site.archive.files if site.archive is not None else ():
            write_bytes(staged / file.page, file.content)
        _replace(into, staged)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return into / "index.html"


def _replace(into: Path, staged: Path) -> None:
    try:
        if into.exists():
            shutil.rmtree(into)
        staged.replace(into)
    except OSError as error:
        raise UserError(f"cannot write {into}: {error.strerror or error}") from None


def _assets() -> dict[str, str]:
    """Return our own files and the libraries, by path."""
    own = files("leaderboard.site") / "templates" / ASSETS
    texts = {path.name: path.read_text(encoding="utf-8") for path in own.iterdir()}
    texts["plotly.min.js"] = (files("plotly") / "package_data" / "plotly.min.js").read_text(
        encoding="utf-8"
    )
    bundle = files("itables") / "html"
    texts["datatables.css"] = (bundle / "dt_bundle.css").read_text(encoding="utf-8")
    texts["datatables.js"] = as_script((bundle / "dt_bundle.js").read_text(encoding="utf-8"))
    return {f"{ASSETS}/{name}": text for name, text in texts.items()}


def as_script(module: str) -> str:
    """Return the module of DataTables as a script that sets `DataTable`: a page opened
    as a file may load scripts and no modules.
    """
    exports = list(re.finditer(r"\bexport\s*\{([^{}]*)\};?", module))
    found = re.search(r"([\w$]+) as default\b", exports[0][1]) if len(exports) == 1 else None
    if found is None:
        raise UserError(
            "the DataTables bundle of itables has another form than expected: install the version "
            "of itables in constraints.txt"
        )
    start, end = exports[0].span()
    return (
        f'"use strict";(()=>{{{module[:start]};window.DataTable={found[1]};{module[end:]}\n}})();\n'
    )
