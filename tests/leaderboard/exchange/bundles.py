"""Making bundles of made-up results, and breaking them."""

import hashlib
import json
import shutil
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from typer.testing import CliRunner

from harness.audit.bundle import write_bundle
from harness.cli.command import app
from harness.run.paths import Paths

RECORDS = "results/v1/digits"


def elsewhere(results, folder):
    """Return a copy of `results` in the new `folder`, as another machine would hold
    them.
    """
    folder.mkdir()
    copied = type(results)(folder)
    shutil.copytree(results.root, copied.root)
    copied.benchmarks = json.loads(json.dumps(results.benchmarks))
    return copied


def stamp(results, fingerprint="x"):
    """Say that everything timed was made by what has `fingerprint`, as the points of
    the fixtures do.
    """
    for benchmark in results.benchmarks:
        benchmark["extra_info"]["fingerprint"] = fingerprint


def packed(results, params, into):
    """Bundle `results` as the harness does and return the file."""
    paths = Paths(results.root.parent, "v1")
    write_bundle(params.model_copy(update={"version": "v1"}), paths, results.params, "digits", into)
    return into


def run(ours, command, bundle, *options):
    """Run a command of the leaderboard on a bundle, beside our results."""
    return CliRunner().invoke(
        app,
        [
            *command.split(),
            str(bundle),
            "--results",
            str(ours.root),
            "--params",
            str(ours.params),
            *options,
        ],
    )


def tree(folder):
    """Return every file below `folder` with its content."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_refused(outcome, *words):
    """Assert a non-zero exit and one line that holds `words`."""
    assert outcome.exit_code == 2, outcome.output
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line


def entries(bundle):
    """Return the files of a zip by name."""
    with ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(bundle, files):
    """Write (entry or name, content) pairs as a zip."""
    with ZipFile(bundle, "w", ZIP_DEFLATED) as archive:
        for entry, content in files:
            archive.writestr(entry, content, ZIP_DEFLATED)


def with_entry(bundle, name, content=b"{}", mode=0o644):
    """Add an entry to a bundle, whatever it is called, and describe it in the
    manifest.
    """
    files = entries(bundle)
    manifest = json.loads(files.pop("manifest.json"))
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    entry = ZipInfo(name)
    entry.external_attr = mode << 16
    write(bundle, [("manifest.json", json.dumps(manifest)), *files.items(), (entry, content)])
