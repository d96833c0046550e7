"""What a table and the digest say of where their numbers come from: data, dense models,
budgets, machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, log2

from leaderboard.records.latency import LatencyRun
from leaderboard.records.schema import DENSE, TrackInfo
from leaderboard.records.statistics import SIGNIFICANT, Estimate
from leaderboard.tables.github import escape
from leaderboard.tables.ranking.best import RULE
from leaderboard.tables.table import Table

REFERENCE = (
    "Dense was not trained here: it, and with it everything made from it, may have been chosen on "
    "the test set"
)

# so many images that all change the same way are the first that are significant: p of
# n of them is 2 / 2^n
FEWEST = floor(log2(2 / SIGNIFICANT)) + 1

AREA = (
    "per method the area under its front of accuracy against log2 of the ratio (bytes to 16, MACs "
    "to 4), over dense's accuracy, chance where it has no row"
)


def caption(table: Table) -> str:
    """Return the title of a table's page and all that a reader must know before its
    numbers.
    """
    info = table.info
    return "\n".join(
        [
            f"# {escape(info.track)} on {escape(table.hardware)}\n",
            f"{_data(info)}\n",
            f"{origin(table)} {resolution(info, dense_accuracies(table))}\n",
            f"Hardware {escape(table.hardware)}: {machine_text(table.run)}.\n",
            "- Brackets are 95 % intervals: Wilson for accuracy, paired bootstrap over images and "
            "seeds for Δ, bootstrap over rounds for latency.",
            "- Δ is accuracy minus that of dense, in points. `*`, `**`, `***`: exact sign-flip "
            "test (McNemar for one seed), p adjusted over this table"
            " (Benjamini-Hochberg) below 0.05, 0.01, 0.001. `±` beside a number of seeds is the "
            "standard deviation over them, in points.",
            "- `promised ×` is what the setting's bits or sparsity say of the weights it touches, "
            "`size ×` what the file shows.",
            "- Ratios and speed-ups are dense / compressed, above 1 is better. MACs and FLOPs (= "
            "2 MACs) are of one image, in millions; `theory ×` is their"
            " ratio, `BOPs ×` that of bit-operations; effective MACs skip zeros.",
            "- `bN` is a batch of N: milliseconds at the median / 95th / 99th percentile; the "
            "realised speed-up, the median of ratios to dense timed just before and after; that "
            "as a share of the theoretical one; the memory that one call needs at its peak. "
            "`tie`: within the noise floor or with 1 in its interval, not ranked. `masked`: zeros "
            "in dense tensors, no claim of speed. `as dense`: dense's own program with other "
            "weights, not timed again: a tie. `same %`: test images on which this runtime "
            "predicts what the artefact predicted in PyTorch.",
            f"- {RULE}.",
            "- `pareto`: no row of the model has more accuracy at no more bytes, MACs or time "
            "(smallest batch; a tie counts as dense, times within the"
            " noise floor of each other as equal).",
            "- Beside this page: `tiers.csv`, per model, cost and target the best method and "
            f"what cannot be told from it; `areas.csv`, {AREA}.",
        ]
    )


def origin(table: Table) -> str:
    """Return what dense is, the budgets of what is made from it, and where and with
    which seeds that ran: what tells tiers apart.
    """
    info = table.info
    dense = _shared({name: model.dense for name, model in info.models.items()})
    reference = (
        f" {REFERENCE}." if any(model.from_reference for model in info.models.values()) else ""
    )
    seeds = ", ".join(str(seed) for seed in info.seeds)
    own = {
        row.method.name: f"{row.method.scratch_epochs:g} from scratch"
        for row in table.rows
        if row.method.scratch_epochs is not None
    }
    epochs = "; ".join(text for text in (budgets(info), _shared(own)) if text)
    return (
        f"Dense: {dense}.{reference} Budgets in epochs: {epochs}. Compressed on "
        f"{escape(info.device)}; seeds: {seeds}."
    )


def budgets(info: TrackInfo) -> str:
    """Return the epochs that methods may train what is made from each dense model."""
    return _shared({name: model.budget for name, model in info.models.items()})


def resolution(info: TrackInfo, dense: Sequence[Estimate]) -> str:
    """Return the smallest differences that the test split can show, and what methods
    were calibrated on.

    dense: the accuracies of the dense models.
    """
    images = info.images.test
    half = max((accuracy.high - accuracy.low for accuracy in dense), default=None)
    interval = (
        "" if half is None else f", the 95 % interval of dense is up to ±{50 * half:.1f} points"
    )
    return (
        f"Resolution: one of {images:,} test images is {100 / images:.2f} points, a difference "
        f"that rests on fewer than {FEWEST} images is never significant{interval}. Calibrated on "
        f"{info.images.calibration:,} images."
    )


def dense_accuracies(table: Table) -> list[Estimate]:
    """Return the accuracies of the dense models that were measured."""
    return [
        row.measured.quality.accuracy
        for row in table.rows
        if row.method.name == DENSE and row.measured
    ]


def machine_text(run: LatencyRun | None) -> str:
    """Return the machine of a latency run and its noise floor in one sentence."""
    if run is None:
        return "no latency was measured on this hardware"
    machine = run.machine
    floors = ", ".join(
        f"{100 * floor:.1f} % at batch {batch}" for batch, floor in run.floors.items()
    )
    who = (
        f"{machine.cpu}, {machine.cores} cores of which {machine.threads} used, governor "
        f"{machine.governor or 'unknown'}, torch {machine.torch}"
    )
    who += "".join(f", {part}" for part in (machine.gpu, machine.runtime) if part)
    where = (
        f"; measured elsewhere, bundle `{run.origin.bundle[:12]}`" if run.origin is not None else ""
    )
    return (
        f"{escape(who)}, fingerprint `{escape(machine.fingerprint)}`{where}; A/A noise floor "
        f"±{floors}"
    )


def _data(info: TrackInfo) -> str:
    """Return the data of a track, down to the hashes of what was loaded."""
    data = (
        f"Track {escape(info.track)}: {escape(info.title)}, dataset {escape(info.dataset)} "
        f"(content hash `{escape(info.content_hash)}`)"
    )
    images = (
        f"{info.images.train} train, {info.images.validation} validation, {info.images.test} "
        f"test, {info.images.calibration} calibration images"
    )
    sources = ", ".join(
        f"{escape(name)} `{escape(sha256)}`" for name, sha256 in info.sources.items()
    )
    notes = "".join(f" {escape(note)};" for note in info.notes).removesuffix(";")
    decided = f" Decided:{notes}." if notes else ""
    return f"{data}, {images}. Version {escape(info.version)}. Loaded (sha256): {sources}.{decided}"


def _shared(texts: Mapping[str, str]) -> str:
    """Return what is said of each name, the names of which the same is said
    together.
    """
    together: dict[str, list[str]] = {}
    for name, text in texts.items():
        together.setdefault(text, []).append(name)
    return "; ".join(
        f"{escape(text)} ({escape(', '.join(names))})" for text, names in together.items()
    )
