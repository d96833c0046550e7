"""The commands for others: pack results, add what others packed, and the form that
results have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import OPTIONS, BundleFile, ParamsFile, Results, Track, ends, opened

app = typer.Typer(**OPTIONS)
Into = Annotated[
    Path | None,
    typer.Option(help="the folder to write the schemas into; by default they are printed"),
]


@app.command(epilog=ends("shrinkmark bundle digits --into digits.zip"))
def bundle(
    track: Track,
    into: Annotated[
        Path | None, typer.Option(help="the file to write; by default <track>-<version>.zip")
    ] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Pack what this machine measured of a track into one file.

    It is for others to check and to add to their results.
    """
    from harness.audit.bundle import write_bundle

    loaded, paths = opened(params)
    file = into or Path(f"{track}-{loaded.version}.zip")
    manifest = write_bundle(loaded, paths, params, track, file)
    typer.echo(
        f"{file}: {len(manifest.files)} files, {file.stat().st_size:,} bytes, code "
        f"{manifest.code.revision[:12]}"
    )


@app.command(epilog=ends("shrinkmark merge digits-v3.zip"))
def merge(
    bundle: BundleFile, results: Results = Path("results"), params: ParamsFile = Path("params.yaml")
) -> None:
    """Add the machines and methods of a bundle that we lack.

    It is checked again, and what is added is marked with where it came from; what we
    have is never overwritten.
    """
    from leaderboard.exchange.merge import merge as run
    from leaderboard.records.outline import read_outline

    for line in run(bundle, results, read_outline(params).chosen_version(None)):
        typer.echo(line)


@app.command(epilog=ends("shrinkmark schema --into leaderboard/records/schemas"))
def schema(into: Into = None) -> None:
    """Print the JSON Schema of every file of results, or write them."""
    from leaderboard.exchange.json_schema import schema_texts
    from leaderboard.records.files import write_text

    for name, text in schema_texts().items():
        if into is None:
            typer.echo(text, nl=False)
        else:
            write_text(into / name, text)
            typer.echo((into / name).as_posix())
