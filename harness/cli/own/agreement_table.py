"""What a terminal shows of a trial on images without labels."""

from __future__ import annotations

from tabulate import tabulate

from harness.trial.agreement import Divergence
from leaderboard.tables.cells import Record, cut, fixed, real, speedup_cell, whole
from leaderboard.tables.groups import setting_text
from leaderboard.tables.precision import accuracy_digits


def agreement_text(records: list[Record], found: list[Divergence]) -> str:
    """Return of every measured row of a track's table how often it answers as dense does
    with its 95 % interval, how many answers flipped, both in percent of the test images;
    how far its probabilities are from dense's, and what it saves.
    """
    divergences = {(one.method, setting_text(one.setting)): one.nats for one in found}
    rows = [row for row in records if (row["method"], row["setting"]) in divergences]
    lines = [_line(row, divergences[row["method"], row["setting"]]) for row in rows]
    align = ["left" if name in ("method", "setting") else "right" for name in lines[0]]
    images = whole(rows[0]["test_images"])
    return (
        f"Without labels: agreement with dense's answers on {images:,} images, KL of "
        f"{found[0].images} (nats)\n"
        f"{tabulate(lines, headers='keys', disable_numparse=True, colalign=align)}"
    )


def _line(row: Record, divergence: float) -> dict[str, str]:
    digits = accuracy_digits(whole(row["test_images"]))
    low, high = (fixed(row[f"accuracy_percent_{end}"], digits) for end in ("low", "high"))
    (batch,) = {name.removeprefix("verdict_") for name in row if name.startswith("verdict_b")} or {
        ""
    }
    timed = {f"{batch} ×": speedup_cell(row, batch)} if batch else {}
    return {
        "method": cut(row["method"], 16),
        "setting": cut(row["setting"], 30),
        "agreement %": f"{fixed(row['accuracy_percent'], digits)} [{low}, {high}]",
        "flips %": f"{100 - real(row['accuracy_percent']):.{digits}f}",
        "KL": f"{divergence:.4f}",
        "KiB": fixed(row["bytes"], 1, 1 / 1024),
        "size ×": fixed(row["compression_ratio"], 2),
        "MACs ×": fixed(row["theoretical_speedup"], 2),
        **timed,
    }
