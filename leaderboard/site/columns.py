"""The columns of the page's tables: what is printed above them, what that means, and
how much room a screen must have to show them unasked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column: its name in the CSV, its title and meaning; `level` 1 is shown on a
    phone, 2 on a desk, 3 on a wide screen, 4 on request.

    Numbers have `digits` and are printed times `scale`; text has None.
    """

    key: str
    title: str
    help: str
    level: int = 4
    digits: int | None = None
    scale: float = 1.0


WHO = (
    Column("method", "Method", "The algorithm that compresses; its name opens the full record.", 1),
    Column("model", "Model", "The trained model that was compressed.", 2),
    Column("setting", "Setting", "The method's hyper-parameters.", 2),
    Column("family", "Family", "The kind of method.", 3),
    Column(
        "needs",
        "Needs",
        "What the method may use: data-free, calibration images, labels, fine-tuning, or training "
        "from scratch.",
        2,
    ),
    Column(
        "realisation",
        "Realisation",
        "How the saving exists: smaller tensors, packed bits, a kernel, zeros in dense tensors "
        "(masked), or work that varies.",
        3,
    ),
)
REACHED = (
    Column(
        "compression_ratio",
        "Size ×",
        "Bytes of the dense file / bytes of this file. Above 1 is smaller.",
        1,
        2,
    ),
    Column(
        "theoretical_speedup",
        "Theory ×",
        "MACs of dense / MACs of this model: the speed-up that arithmetic alone would give.",
        2,
        2,
    ),
)
SPENT = (
    Column("steps", "Steps", "Optimiser steps that the method took.", 3, 0),
    Column(
        "compress_seconds",
        "Seconds",
        "Seconds that compressing took, without loading and evaluating.",
        3,
        1,
    ),
    Column(
        "bytes",
        "KiB",
        "Length of the file that the evaluated model was read from, in KiB.",
        3,
        1,
        1 / 1024,
    ),
    Column("macs", "MACs (M)", "Multiply-accumulates of one image, in millions.", 4, 3, 1e-6),
    Column("flops", "FLOPs (M)", "Twice the MACs, in millions.", 4, 3, 1e-6),
    Column(
        "effective_macs",
        "Effective MACs (M)",
        "MACs without those on zero weights, in millions.",
        4,
        3,
        1e-6,
    ),
    Column(
        "bit_operations_ratio",
        "BOPs ×",
        "Bit-operations of dense / bit-operations of this model.",
        4,
        2,
    ),
    Column("parameters", "Parameters", "Numbers that the model stores.", 4, 0),
    Column(
        "claimed_ratio",
        "Promised ×",
        "What the setting's bits or sparsity say of the weights it touches.",
        4,
        2,
    ),
    Column(
        "size_of_claim", "Size of promise", "The size ratio as a share of the promised one.", 4, 2
    ),
    Column("peak_mib", "Peak MiB", "Memory that compressing needed at its peak.", 4, 0),
    Column("images", "Images", "Images that the method drew.", 4, 0),
    Column("seeds", "Seeds", "Runs that are averaged here.", 4, 0),
    Column(
        "seed_std_points",
        "± seeds",
        "Standard deviation of the accuracy over seeds, in points.",
        4,
        2,
    ),
    Column(
        "p_adjusted",
        "p",
        "Exact sign-flip test against dense, adjusted over the table for the false discovery rate.",
        4,
        4,
    ),
    Column(
        "best",
        "Best",
        "Smallest or fastest of its model and needs class among rows without a significant loss.",
        4,
    ),
    Column("pareto", "Front", "No row of the model has more accuracy at no more of this cost.", 3),
    Column(
        "origin",
        "Origin",
        "Of a row that was run elsewhere: what is known of its numbers, and the bundle it came in.",
        4,
    ),
    Column("status", "Status", "ok, skipped or failed, or how many seeds were measured.", 4),
    Column("reason", "Reason", "Why the row was skipped or failed.", 4),
    Column("latency_reason", "Latency", "Why the row was not timed.", 4),
)


def columns(batches: Sequence[int], accuracy_digits: int) -> tuple[Column, ...]:
    """Return the columns of a table that times `batches`, the smallest first, and
    prints accuracy to `accuracy_digits`.
    """
    accuracy = Column(
        "accuracy_percent",
        "Accuracy %",
        "On the test split, with its 95 % Wilson interval.",
        1,
        accuracy_digits,
    )
    delta = Column(
        "delta_points",
        "Δ points",
        "Accuracy minus that of dense, with its 95 % interval. *, **, ***: adjusted p below 0.05, "
        "0.01, 0.001.",
        2,
        accuracy_digits,
    )
    timed = [
        column for batch in batches for column in _timed(batch, 2 if batch == batches[0] else 3)
    ]
    return (*WHO, accuracy, delta, *REACHED, *timed, *SPENT)


def _timed(batch: int, level: int) -> tuple[Column, ...]:
    return (
        Column(
            f"speedup_b{batch}",
            f"Speed-up b{batch}",
            f"Measured: dense / this model at batch {batch}. tie: within the clock's noise.",
            level,
            2,
        ),
        Column(
            f"p50_ms_b{batch}", f"b{batch} ms", f"Median milliseconds of a batch of {batch}.", 4, 3
        ),
        Column(
            f"p95_ms_b{batch}",
            f"b{batch} p95 ms",
            f"95th percentile of the milliseconds of a batch of {batch}.",
            4,
            3,
        ),
        Column(
            f"p99_ms_b{batch}",
            f"b{batch} p99 ms",
            f"99th percentile of the milliseconds of a batch of {batch}.",
            4,
            3,
        ),
        Column(
            f"realised_of_theory_b{batch}",
            f"b{batch} of theory",
            "The measured speed-up as a share of the theoretical one.",
            4,
            2,
        ),
        Column(f"verdict_b{batch}", f"b{batch} verdict", "What the clock says in one word.", 4),
        Column(
            f"peak_mib_b{batch}",
            f"b{batch} MiB",
            f"Memory that one call at batch {batch} needs at its peak.",
            4,
            2,
        ),
        Column(
            f"agreement_percent_b{batch}",
            f"b{batch} same %",
            "Test images on which this runtime predicts what the artefact predicted.",
            4,
            1,
        ),
    )
