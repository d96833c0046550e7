"""A table as a page for people."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from leaderboard.best import RULE
from leaderboard.errors import one_line
from leaderboard.latency import Latency, LatencyRun
from leaderboard.rows import Measurement, Row
from leaderboard.statistics import Estimate, stars
from leaderboard.tables import Table, number, verdict

Cells = dict[str, str]
TEXT_COLUMNS = ("method", "family", "setting", "needs", "realisation", "best", "pareto", "status")
ENTITIES = str.maketrans({character: f"&#{ord(character)};" for character in "|\\`[*"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def escape(text: str) -> str:
    """Return text from results as inert Markdown on one line."""
    return one_line(text).translate(ENTITIES)


def markdown_text(table: Table) -> str:
    """Return the page: a caption, then one table per model with dense first."""
    models = dict.fromkeys(row.model for row in table.rows)
    sections = [_section(model, [_cells(table, row) for row in table.rows if row.model == model]) for model in models]
    return "\n\n".join([_caption(table), *sections]) + "\n"


def github_table(records: Sequence[Cells], text_columns: Sequence[str]) -> str:
    """Return records as a GitHub table, numbers to the right."""
    align = ["left" if name in text_columns else "right" for name in records[0]]
    return tabulate(records, headers="keys", tablefmt="github", disable_numparse=True, colalign=align)


def _section(model: str, records: Sequence[Cells]) -> str:
    return f"## {escape(model)}\n\n{github_table(records, TEXT_COLUMNS)}"


def machine_text(run: LatencyRun | None) -> str:
    """Return the machine of a latency run and its noise floor in one sentence."""
    if run is None:
        return "no latency was measured on this hardware"
    machine = run.machine
    floors = ", ".join(f"{100 * floor:.1f} % at batch {batch}" for batch, floor in run.floors.items())
    who = f"{machine.cpu}, {machine.cores} cores of which {machine.threads} used, governor {machine.governor or 'unknown'}, torch {machine.torch}"
    return f"{escape(who)}, fingerprint `{escape(machine.fingerprint)}`; A/A noise floor ±{floors}"


def _caption(table: Table) -> str:
    info = table.info
    track = f"Track {escape(info.track)}: dataset {escape(info.dataset)} (content hash `{escape(info.content_hash)}`)"
    images = f"{info.images.train} train, {info.images.validation} validation, {info.images.test} test, {info.images.calibration} calibration images"
    return "\n".join(
        [
            f"# {escape(info.track)} on {escape(table.hardware)}\n",
            f"{track}, {images}. Version {escape(info.version)}.",
            f"Hardware {escape(table.hardware)}: {machine_text(table.run)}.\n",
            "- Brackets are 95 % intervals: Wilson for accuracy, paired bootstrap over images and seeds for Δ, bootstrap over rounds for latency.",
            "- Δ is accuracy minus that of dense, in points. `*`, `**`, `***`: exact sign-flip test (McNemar for one seed), p adjusted over this table"
            " (Benjamini-Hochberg) below 0.05, 0.01, 0.001. `±` beside a number of seeds is the standard deviation over them, in points.",
            "- Ratios and speed-ups are dense / compressed, above 1 is better. MACs and FLOPs (= 2 MACs) are of one image, in millions; `theory ×` is their"
            " ratio, `BOPs ×` that of bit-operations; effective MACs skip zeros.",
            "- `bN` is a batch of N: milliseconds at the median / 95th percentile, and the realised speed-up, the median of ratios to dense timed just"
            " before and after. `tie`: within the noise floor or with 1 in its interval, not ranked. `masked`: zeros in dense tensors, no claim of speed.",
            f"- {RULE}.",
            "- `pareto`: no row of the model has more accuracy at no more bytes, MACs or time (smallest batch; a tie counts as dense, times within the"
            " noise floor of each other as equal).",
        ]
    )


def _cells(table: Table, row: Row) -> Cells:
    cells = {"method": row.method.name, "family": row.method.family, "setting": row.setting, "needs": row.method.needs}
    cells = {name: escape(text) for name, text in (cells | {"realisation": row.method.realisation}).items()}
    cells |= _quality(row) | _costs(row.measured)
    for batch in table.batches:
        cells |= _latency(row, batch)
    cells |= _spent(row.measured)
    status = f"{row.status}: {row.reason}" if row.reason else row.status
    return cells | {"best": " ".join(row.best), "pareto": " ".join(row.pareto), "status": escape(status)}


def _quality(row: Row) -> Cells:
    if row.measured is None:
        return {"seeds": "", "accuracy %": "", "Δ points": ""}
    quality = row.measured.quality
    spread = f" ±{100 * quality.seed_std:.1f}" if quality.seed_std is not None else ""
    mark = stars(quality.adjusted_p).replace("*", "\\*")
    delta = f"{_with_interval(quality.delta, 100, 1)} {mark}".strip() if quality.delta else ""
    return {"seeds": f"{row.seeds}{spread}", "accuracy %": _with_interval(quality.accuracy, 100, 1), "Δ points": delta}


def _costs(measured: Measurement | None) -> Cells:
    costs, ratios = (measured.costs, measured.ratios) if measured else (None, None)
    return {
        "KiB": number(costs.bytes if costs else None, 1, 1 / 1024),
        "size ×": number(ratios.compression if ratios else None, 2),
        "parameters": number(costs.parameters if costs else None, 0),
        "MMACs": number(costs.macs if costs else None, 3, 1e-6),
        "MFLOPs": number(costs.macs if costs else None, 3, 2e-6),
        "theory ×": number(ratios.theoretical_speedup if ratios else None, 2),
        "effective MMACs": number(costs.effective_macs if costs else None, 3, 1e-6),
        "BOPs ×": number(ratios.bit_operations if ratios else None, 2),
    }


def _latency(row: Row, batch: int) -> Cells:
    timed = row.measured.latency.get(batch) if row.measured else None
    times = f"{1000 * timed.p50.value:.3f} / {1000 * timed.p95:.3f}" if timed else ""
    return {f"b{batch} p50 / p95 ms": times, f"b{batch} realised ×": _speedup(row, timed)}


def _speedup(row: Row, timed: Latency | None) -> str:
    word = verdict(row, timed)
    return _with_interval(timed.speedup, 1, 2) if timed is not None and word in ("faster", "slower") else word


def _spent(measured: Measurement | None) -> Cells:
    costs = measured.costs if measured else None
    return {
        "compress s": number(costs.seconds if costs else None, 2),
        "peak MiB": number(costs.peak_mib if costs else None, 0),
        "images": number(costs.images if costs else None, 0),
        "steps": number(costs.steps if costs else None, 0),
    }


def _with_interval(estimate: Estimate, scale: float, digits: int) -> str:
    low, high = number(estimate.low, digits, scale), number(estimate.high, digits, scale)
    return f"{number(estimate.value, digits, scale)} [{low}, {high}]"
