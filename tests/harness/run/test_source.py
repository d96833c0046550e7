"""Hashes of sources by their meaning: what counts, what does not, and that every
supported Python finds the same.
"""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from harness.run import fingerprint
from harness.run.code.source import Sources
from leaderboard.records.errors import UserError
from tests.conftest import ROOT

CORPUS = ROOT / "tests" / "sources" / "corpus"
STORED = json.loads((CORPUS.parent / "hashes.json").read_text())
OTHERS = ["3.11", "3.12", "3.13"]
HASHED = """
import json, sys
from pathlib import Path
from harness.run.code.source import Sources
root, packages, modules = Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split()
sources = Sources({name: [root / name] for name in packages}, ["leaderboard"])
print(json.dumps({module: sources.hash(module) for module in modules}))
"""


@cache
def python(version: str) -> str | None:
    """Return the interpreter of that version, if there is one: what CI installs, or
    lies on the path.
    """
    if sys.version.startswith(f"{version}."):
        return sys.executable
    found = os.environ.get(f"SHRINKMARK_PYTHON_{version.replace('.', '_')}") or shutil.which(
        f"python{version}"
    )
    works = found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0
    return found if works else None


def hashes(version: str, root: Path, packages: list[str], modules: list[str]) -> dict[str, str]:
    """Return what the interpreter of `version` makes of `modules`."""
    interpreter = python(version)
    if interpreter is None:
        assert "CI" not in os.environ, f"CI has no Python {version}: .ci/run installs it"
        pytest.skip(f"no Python {version} here")
    command = [interpreter, "-c", HASHED, str(root), " ".join(packages), " ".join(modules)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("version", OTHERS)
def test_stored_hashes_hold_on_every_supported_python(version):
    assert hashes(version, CORPUS.parent, ["corpus"], list(STORED)) == STORED


@pytest.mark.parametrize("version", OTHERS[1:])
def test_every_method_and_the_harness_have_the_same_hash_on_every_supported_python(version):
    methods = [f"methods.{path.stem}" for path in sorted((ROOT / "methods").glob("[a-z]*.py"))]
    modules = [*methods, "harness.point.worker"]
    assert hashes(version, ROOT, ["methods", "harness", "leaderboard"], modules) == {
        module: fingerprint.sources().hash(module) for module in modules
    }


@pytest.fixture
def corpus(tmp_path):
    """Return a copy of the corpus to change, and its hashes by module."""
    shutil.copytree(CORPUS, tmp_path / "corpus", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "corpus"


def hashed(corpus: Path) -> dict[str, str]:
    sources = Sources({"corpus": [corpus]})
    return {module: sources.hash(module) for module in STORED}


def edited(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


WORDS = [
    ('"""Return x times `by`."""', '"""Say it otherwise."""'),
    ("\n\n\ndef", "\n\n\n# a comment\n\n\ndef"),
    ("float = 2.0", "float = (\n    2.0\n)"),
]


@pytest.mark.parametrize(("before", "after"), WORDS)
def test_words_and_layout_do_not_count(corpus, before, after):
    edited(corpus / "inner" / "shared.py", before, after)
    assert hashed(corpus) == STORED


def test_a_changed_line_counts_for_its_users_alone(corpus):
    edited(corpus / "inner" / "shared.py", "x * by", "x * by * by")
    changed = {module for module, found in hashed(corpus).items() if found != STORED[module]}
    assert changed == {"corpus.inner.shared", "corpus.users"}


def test_moving_a_shared_file_into_a_folder_changes_no_hash(corpus):
    (corpus / "inner" / "deeper").mkdir()
    (corpus / "inner" / "deeper" / "__init__.py").write_text("")
    (corpus / "inner" / "shared.py").rename(corpus / "inner" / "deeper" / "common.py")
    users = corpus / "users.py"
    users.write_text(users.read_text().replace("inner.shared import", "inner.deeper.common import"))
    edited(users, "from corpus.inner import shared", "from corpus.inner.deeper import common")
    edited(users, "shared.scaled(", "common.scaled(")
    found = Sources({"corpus": [corpus]})
    assert (
        found.hash("corpus.users") == STORED["corpus.users"]
        and found.hash("corpus.inner.deeper.common") == STORED["corpus.inner.shared"]
    )


def test_a_relative_import_means_the_same(corpus):
    edited(corpus / "users.py", "from corpus.inner import shared", "from .inner import shared")
    assert hashed(corpus) == STORED


def test_another_function_of_a_shared_file_is_another_meaning(corpus):
    edited(corpus / "users.py", "shared.scaled(again", "shared.scaled(scaled")
    assert hashed(corpus) == STORED, "one function under two names"
    edited(corpus / "users.py", "by=FACTOR", "by=scaled")
    assert hashed(corpus)["corpus.users"] != STORED["corpus.users"]


GAPS = [
    (
        "from corpus.inner.shared import scaled as again",
        "from corpus.inner.gone import scaled as again",
        "imports corpus.inner.gone, which there is not",
    ),
    (
        "from corpus.inner.shared import scaled as again",
        "from corpus.inner.shared import gone as again",
        "imports gone from corpus.inner.shared",
    ),
    (
        "from corpus.inner import shared",
        "from corpus import shared",
        "imports shared from corpus, which has no such name",
    ),
    (
        "import math as m",
        "import math as m\nimport corpus.gone",
        "imports corpus.gone, which there is not",
    ),
    (
        "import math as m",
        "import math as m\nfrom .gone import *",
        "imports corpus.gone, which there is not",
    ),
]


@pytest.mark.parametrize(("before", "after", "message"), GAPS)
def test_an_import_of_ours_that_does_not_resolve_is_an_error(corpus, before, after, message):
    edited(corpus / "users.py", before, after)
    with pytest.raises(UserError, match=message):
        hashed(corpus)


def test_a_circle_of_imports_is_an_error(corpus):
    edited(
        corpus / "inner" / "shared.py", "SCALE: float", "from corpus import users\n\nSCALE: float"
    )
    with pytest.raises(
        UserError, match=r"corpus.inner.shared → corpus.users → corpus.inner.shared"
    ):
        Sources({"corpus": [corpus]}).hash("corpus.inner.shared")


def test_names_of_a_silent_package_count_and_its_files_do_not(corpus):
    def users() -> str:
        return Sources({"corpus": [corpus]}, ["corpus.inner"]).hash("corpus.users")

    before = users()
    edited(corpus / "inner" / "shared.py", "x * by", "x + by")
    assert users() == before != STORED["corpus.users"]
    edited(corpus / "users.py", "by=FACTOR", "by=scaled")
    assert users() != before
