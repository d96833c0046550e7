"""Plots of a table: what was promised against what came of it, for time and for bytes;
SVG, the same bytes from the same results.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from leaderboard.tables.table import Table

STYLE: Any = {
    "svg.hashsalt": "shrinkmark",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
MARKERS = "osD^v<>Pp*Xd+x"


@dataclass(frozen=True)
class Mark:
    """A row in a plot: promised and real ratio to dense, and the ends of the real one's
    interval.
    """

    family: str
    promised: float
    real: float
    low: float
    high: float


def speed_plot(table: Table) -> str | None:
    """Return theoretical against realised speed-up of all timed rows, a panel for each
    batch size, or None if there are none.
    """
    panels = {f"batch {batch}": _speeds(table, batch) for batch in table.batches}
    bands = {
        f"batch {batch}": table.run.floors.get(batch, 0.0) if table.run else 0.0
        for batch in table.batches
    }
    title = f"{table.info.track} on {table.hardware}: theoretical and realised speed-up"
    return (
        _plot(
            title,
            panels,
            bands,
            ("theoretical speed-up (MACs of dense / MACs)", "realised speed-up"),
        )
        if any(panels.values())
        else None
    )


def size_plot(table: Table) -> str | None:
    """Return the ratio that settings promise against that of files, or None if no
    setting promises one.
    """
    marks = [
        Mark(row.method.family, row.claimed, ratio, ratio, ratio)
        for row in table.rows
        if row.claimed is not None
        and row.measured is not None
        and (ratio := row.measured.ratios.compression) is not None
    ]
    labels = (
        "ratio that the setting promises (bits, sparsity)",
        "bytes of dense / bytes of the file",
    )
    return (
        _plot(f"{table.info.track}: promised and real compression", {"": marks}, {"": 0.0}, labels)
        if marks
        else None
    )


def _speeds(table: Table, batch: int) -> list[Mark]:
    marks = []
    for row in table.rows:
        timed = row.measured.latency.get(batch) if row.measured else None
        theory = row.measured.ratios.theoretical_speedup if row.measured else None
        if timed is not None and theory is not None and not timed.as_dense:
            marks.append(
                Mark(
                    row.method.family,
                    theory,
                    timed.speedup.value,
                    timed.speedup.low,
                    timed.speedup.high,
                )
            )
    return marks


def _plot(
    title: str, panels: dict[str, list[Mark]], bands: dict[str, float], labels: tuple[str, str]
) -> str:
    families = sorted({mark.family for marks in panels.values() for mark in marks})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(panels) + 2.6, 4.4), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for name, panel in zip(panels, axes, strict=True):
            _panel(panel, panels[name], families, bands[name])
            panel.set_title(name)
            panel.set_xlabel(labels[0])
        axes[0].set_ylabel(labels[1])
        figure.suptitle(title)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", frameon=False)
        return svg_text(figure)


def svg_text(figure: Figure) -> str:
    """Return a figure as SVG, the same bytes each time; the caller holds STYLE."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def family_style(index: int) -> dict[str, Any]:
    """Return marker and colour of the family at `index`, for points with thin
    intervals.
    """
    look = {"marker": MARKERS[index % len(MARKERS)], "color": f"C{index % 10}", "linestyle": "none"}
    return look | {"markersize": 4, "elinewidth": 0.6, "alpha": 0.8}


def ratio_axis(axis: Axis) -> None:
    """Print the ticks of a logarithmic axis of ratios as plain numbers."""
    axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(mpl.ticker.NullFormatter())


def _panel(panel: Axes, marks: Sequence[Mark], families: Sequence[str], band: float) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    ends = [value for mark in marks for value in (mark.promised, mark.low, mark.high)] + [1.0]
    panel.axline((1, 1), (2, 2), color="grey", linewidth=1, linestyle="--")
    panel.axhspan(1 / (1 + band), 1 + band, color="grey", alpha=0.2)
    for index, family in enumerate(families):
        chosen = [mark for mark in marks if mark.family == family]
        errors = [
            [mark.real - mark.low for mark in chosen],
            [mark.high - mark.real for mark in chosen],
        ]
        panel.errorbar(
            [mark.promised for mark in chosen],
            [mark.real for mark in chosen],
            yerr=errors,
            label=family,
            **family_style(index),
        )
    limits = min(ends) / 1.1, max(ends) * 1.1
    panel.set_xlim(*limits)
    panel.set_ylim(*limits)
    for axis in (panel.xaxis, panel.yaxis):
        ratio_axis(axis)
