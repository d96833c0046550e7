"""The commands that check: params, committed results, a bundle from elsewhere, and
records by running them again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    OPTIONS,
    BundleFile,
    ParamsFile,
    Quiet,
    Results,
    Track,
    ends,
    opened,
    tell_passed_over,
)

app = typer.Typer(**OPTIONS)
check = typer.Typer(help="Check params, committed results, or a bundle from elsewhere.", **OPTIONS)
app.add_typer(check, name="check")
Share = Annotated[
    float | None,
    typer.Option(
        "--rerun",
        min=0,
        help="run this share of its points again (1: all, above 1: so many); by default none",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0, help="draws the points that are run again; by default the bundle's own sha256 does"
    ),
]


@check.command(
    "params",
    epilog=ends("shrinkmark check params", failed="a method of another package breaks the rules"),
)
def check_params(params: ParamsFile = Path("params.yaml")) -> None:
    """Say whether params.yaml is well formed.

    Down to every setting of every method and the tracks shown first, and whether
    methods of other packages keep the rules.
    """
    from harness.latency import runtimes
    from harness.run import registry
    from harness.run.points import expand

    loaded, _ = opened(params)
    runtimes.check(loaded.profiles)
    if (params.parent / "tracks").is_dir():  # the package's own params.yaml comes without
        for name in loaded.shown_first:
            loaded.track(name)
    points = sum(
        len(expand(loaded, track, method)) for track in loaded.tracks for method in loaded.plans
    )
    refused = list(registry.refusals(loaded.plans))
    for line in refused:
        typer.echo(f"error: {line}", err=True)
    if refused:
        raise typer.Exit(1)
    typer.echo(
        f"{params}: {len(loaded.tracks)} tracks, {len(loaded.methods)} methods, "
        f"{len(loaded.chains)} chains, {points} points"
    )


@check.command(
    "results",
    epilog=ends(
        "shrinkmark check results", failed="the results are not those of this code and these params"
    ),
)
def check_results(params: ParamsFile = Path("params.yaml")) -> None:
    """Say whether results belong to this code and params.

    And whether they are those that were committed.
    """
    from harness.audit.check import check_results as run
    from harness.audit.check import from_elsewhere
    from harness.audit.reproduction import reproductions

    loaded, paths = opened(params)
    for note in from_elsewhere(loaded, paths):
        typer.echo(note)
    for track in loaded.tracks:
        tell_passed_over(loaded, paths.records(track) / "track.json", track)
    again = list(reproductions(loaded, paths))
    for found in again:
        typer.echo(found.line, err=found.contradicted)
    findings = run(loaded, paths)
    for finding in findings:
        typer.echo(f"error: {finding}", err=True)
    if findings or any(found.contradicted for found in again):
        raise typer.Exit(1)
    typer.echo(f"results of version {loaded.version} belong to this code and params")


@check.command(
    "bundle",
    epilog=ends(
        "shrinkmark check bundle digits-v3.zip --rerun 0.02", failed="a point is contradicted"
    ),
)
def check_bundle(
    bundle: BundleFile,
    rerun: Share = None,
    seed: Seed = None,
    quiet: Quiet = False,
    results: Results = Path("results"),
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Check a bundle from elsewhere, and label its points.

    A sample of them is run again if asked; the labels go into <BUNDLE>.labels.json.
    """
    with tempfile.TemporaryDirectory() as temporary:
        from leaderboard.exchange.checked import check_bundle as run
        from leaderboard.exchange.labels import (
            Again,
            counted,
            labels_file,
            run_again,
            self_reported,
        )
        from leaderboard.records.files import write_text

        outside = run(bundle, results, Path(temporary))
        labels, found = (
            (self_reported(outside), ())
            if rerun is None
            else run_again(outside, Again(rerun, seed, params))
        )
        write_text(labels_file(bundle), labels.model_dump_json(indent=1) + "\n")
        if not quiet:
            typer.echo(f"{bundle.name}: {counted(labels)}; labels in {labels_file(bundle).name}")
        contradicted = [point for point in found if point.verdict == "different"]
        for point in contradicted:
            typer.echo(
                f"error: {point.method} {point.id} is contradicted: {point.reason}", err=True
            )
    if contradicted:
        raise typer.Exit(1)


@app.command(
    epilog=ends(
        "shrinkmark rerun digits --method wanda --model vit --share 0.2",
        failed="a point came out different",
    )
)
def rerun(
    track: Track,
    method: Annotated[
        list[str] | None, typer.Option(help="only this method or chain (may be given again)")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="only this model (may be given again)")
    ] = None,
    share: Annotated[
        float,
        typer.Option(
            min=0, help="the share of the points that is run again; 1: all, above 1: so many"
        ),
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="draws the points")] = 0,
    records: Annotated[
        Path | None,
        typer.Option(
            help="the folder of the records, in place of the committed ones; it holds a track.json"
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="a JSON file for the findings")] = None,
    quiet: Quiet = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Run a sample of the recorded points again.

    Dense is trained anew, and of each point is said whether it came out the same.
    """
    loaded, paths = opened(params)
    from harness.run.server.pool import start_server

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
        if not quiet:
            typer.echo(line)
    if any(point.verdict == "different" for point in found.points):
        raise typer.Exit(1)
