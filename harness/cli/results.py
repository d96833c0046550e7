"""The commands about results that are there: checks, running them again, and packing them for others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import OPTIONS, ParamsFile, Track, opened

app = typer.Typer(**OPTIONS)
check = typer.Typer(help="Check params or committed results.", **OPTIONS)
app.add_typer(check, name="check")


@app.command()
def bundle(
    track: Track,
    into: Annotated[Path | None, typer.Option(help="the file to write; by default <track>-<version>.zip")] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Pack what this machine measured of a track into one file, for others to check and to add to their results.

    Example: python -m harness bundle digits --into digits.zip
    """
    from harness.audit.bundle import write_bundle

    loaded, paths = opened(params)
    file = into or Path(f"{track}-{loaded.version}.zip")
    manifest = write_bundle(loaded, paths, params, track, file)
    typer.echo(f"{file}: {len(manifest.files)} files, {file.stat().st_size:,} bytes, code {manifest.code.revision[:12]}")


@app.command()
def rerun(
    track: Track,
    method: Annotated[list[str] | None, typer.Option(help="only this method or chain (may be given again)")] = None,
    model: Annotated[list[str] | None, typer.Option(help="only this model (may be given again)")] = None,
    share: Annotated[float, typer.Option(min=0, help="the share of the points that is run again; 1: all, above 1: so many")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="draws the points")] = 0,
    records: Annotated[Path | None, typer.Option(help="the folder of the records, in place of the committed ones; it holds a track.json")] = None,
    report: Annotated[Path | None, typer.Option(help="a JSON file for the findings")] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Train dense anew, run a sample of the recorded points again, and say of each whether it came out the same; exit 1 if one is different.

    Example: python -m harness rerun digits --method wanda --model vit --share 0.2
    """
    loaded, paths = opened(params)
    from harness.run.pool import start_server

    start_server()
    from harness.audit.rerun import Sample, verdicts
    from harness.audit.rerun import rerun as run
    from harness.run.selection import Selection
    from leaderboard.records import files

    chosen = Selection(tuple(method or ()), tuple(model or ()))
    found = run(loaded, records or paths.records(track), track, Sample(chosen, share, seed))
    if report is not None:
        files.write_json(report, found.model_dump())
    for line in verdicts(found):
        typer.echo(line)
    if any(point.verdict == "different" for point in found.points):
        sys.exit(1)


@check.command("params")
def check_params(params: ParamsFile = Path("params.yaml")) -> None:
    """Say whether params.yaml is well formed, down to every setting of every method, and whether methods of other packages keep the rules; exit 1 if not.

    Example: python -m harness check params
    """
    from harness.latency import runtimes
    from harness.run import registry
    from harness.run.points import expand

    loaded, _ = opened(params)
    runtimes.check(loaded.profiles)
    points = sum(len(expand(loaded, track, method)) for track in loaded.tracks for method in loaded.plans)
    refused = list(registry.refusals(loaded.plans))
    for line in refused:
        typer.echo(f"error: {line}", err=True)
    if refused:
        sys.exit(1)
    typer.echo(f"{params}: {len(loaded.tracks)} tracks, {len(loaded.methods)} methods, {len(loaded.chains)} chains, {points} points")


@check.command("results")
def check_results(params: ParamsFile = Path("params.yaml")) -> None:
    """Say whether the results belong to this code and these params, and whether they are those that were committed; exit 1 if not.

    Example: python -m harness check results
    """
    from harness.audit.check import check_results as run
    from harness.audit.check import from_elsewhere
    from harness.audit.reproduction import reproductions

    loaded, paths = opened(params)
    for note in from_elsewhere(loaded, paths):
        typer.echo(note)
    again = list(reproductions(loaded, paths))
    for track in again:
        typer.echo(track.line, err=track.contradicted)
    findings = run(loaded, paths)
    for finding in findings:
        typer.echo(f"error: {finding}", err=True)
    if findings or any(track.contradicted for track in again):
        sys.exit(1)
    typer.echo(f"results of version {loaded.version} belong to this code and params")
