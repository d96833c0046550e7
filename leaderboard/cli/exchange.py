"""The commands for results from elsewhere: check a bundle, add it, and the form that results have."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from leaderboard.cli.options import ParamsFile, Results, one_line_errors

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

BundleFile = Annotated[Path, typer.Argument(help="A bundle that `python -m harness bundle` wrote.")]
Share = Annotated[
    float | None, typer.Option("--rerun", min=0, help="Run this share of its points again (1: all, above 1: so many); by default none.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Draws the points that are run again; by default the bundle's own sha256 does.")]
Into = Annotated[Path | None, typer.Option(help="The folder to write the schemas into; by default they are printed.")]


@app.command("check-bundle", epilog="Example: python -m leaderboard check-bundle digits-v2.zip --rerun 0.02")
def check_bundle_command(
    bundle: BundleFile, rerun: Share = None, seed: Seed = None, results: Results = Path("results"), params: ParamsFile = Path("params.yaml")
) -> None:
    """Check a bundle from elsewhere, run a sample again if asked, label each point in <BUNDLE>.labels.json; exit 1 if it is refused or contradicted."""
    with one_line_errors(), tempfile.TemporaryDirectory() as temporary:
        from leaderboard.exchange.checked import check_bundle
        from leaderboard.exchange.labels import Again, counted, labels_file, run_again, self_reported
        from leaderboard.records.files import write_text

        outside = check_bundle(bundle, results, Path(temporary))
        labels, found = (self_reported(outside), ()) if rerun is None else run_again(outside, Again(rerun, seed, params))
        write_text(labels_file(bundle), labels.model_dump_json(indent=1) + "\n")
        typer.echo(f"{bundle.name}: {counted(labels)}; labels in {labels_file(bundle).name}")
        contradicted = [point for point in found if point.verdict == "different"]
        for point in contradicted:
            typer.echo(f"error: {point.method} {point.id} is contradicted: {point.reason}", err=True)
    if contradicted:
        raise typer.Exit(1)


@app.command(epilog="Example: python -m leaderboard merge digits-v2.zip")
def merge(bundle: BundleFile, results: Results = Path("results"), params: ParamsFile = Path("params.yaml")) -> None:
    """Check a bundle again and add the machines and methods that we lack, marked with where they came from; what we have is never overwritten."""
    with one_line_errors():
        from leaderboard.exchange.merge import merge as run
        from leaderboard.records.outline import read_outline

        for line in run(bundle, results, read_outline(params).chosen_version(None)):
            typer.echo(line)


@app.command(epilog="Example: python -m leaderboard schema --into leaderboard/records/schemas")
def schema(into: Into = None) -> None:
    """Print the JSON Schema of every file of results and bundles, or write one file for each."""
    with one_line_errors():
        from leaderboard.exchange.json_schema import schema_texts
        from leaderboard.records.files import write_text

        for name, text in schema_texts().items():
            if into is None:
                typer.echo(text, nl=False)
            else:
                write_text(into / name, text)
                typer.echo((into / name).as_posix())
