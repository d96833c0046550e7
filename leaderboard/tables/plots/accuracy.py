"""The plot that the README shows: accuracy against compression ratio, a panel for each model,
with its Pareto front; on white, readable on any page.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leaderboard.records.schema import DENSE
from leaderboard.tables.plots.promised import STYLE, family_style, ratio_axis, svg_text
from leaderboard.tables.rows import Measurement, Row
from leaderboard.tables.table import Table

COLUMNS = 2
BELOW = 15.0  # points below dense at which a panel ends
PlotPoint = tuple[float, Measurement]  # compression ratio, and all else


def accuracy_plot(table: Table) -> str | None:
    """Return a panel for each model with the 95 % intervals of its rows and its front
    for bytes, or None if no row has a compression ratio.
    """
    models = list(dict.fromkeys(row.model for row in table.rows if _place(row) is not None))
    if not models:
        return None
    families = list(dict.fromkeys(row.method.family for row in table.rows))
    lines = -(-len(models) // COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.1 * lines + 1.2), layout="constrained")
        axes = figure.subplots(lines, COLUMNS, squeeze=False).flat
        for panel, model in zip(axes, models, strict=False):
            _panel(panel, [row for row in table.rows if row.model == model], families)
            panel.set_title(model)
        for panel in list(axes)[len(models) :]:
            panel.set_visible(False)
        figure.supxlabel("compression ratio (bytes of dense / bytes of the file)")
        figure.supylabel("test accuracy, %")
        handles = {
            name: handle
            for panel in figure.axes
            for handle, name in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center", ncols=6, frameon=False
        )
        return svg_text(figure)


def _panel(panel: Axes, rows: Sequence[Row], families: Sequence[str]) -> None:
    for index, family in enumerate(families):
        found = [
            place
            for row in rows
            if row.method.family == family and (place := _place(row)) is not None
        ]
        if found:
            values = [100 * measured.quality.accuracy.value for _, measured in found]
            low = [
                100 * (measured.quality.accuracy.value - measured.quality.accuracy.low)
                for _, measured in found
            ]
            high = [
                100 * (measured.quality.accuracy.high - measured.quality.accuracy.value)
                for _, measured in found
            ]
            panel.errorbar(
                [ratio for ratio, _ in found],
                values,
                yerr=[low, high],
                label=family,
                **family_style(index),
            )
    _front(panel, rows)
    panel.set_xscale("log")
    ratio_axis(panel.xaxis)
    dense = [
        100 * row.measured.quality.accuracy.value
        for row in rows
        if row.method.name == DENSE and row.measured is not None
    ]
    panel.set_ylim(max(0.0, max(dense, default=100.0) - BELOW), 101)


def _front(panel: Axes, rows: Sequence[Row]) -> None:
    """Draw the staircase through the members of the front for bytes."""
    places = [place for row in rows if "bytes" in row.pareto and (place := _place(row)) is not None]
    members = sorted((ratio, -100 * measured.quality.accuracy.value) for ratio, measured in places)
    panel.step(
        [ratio for ratio, _ in members],
        [-value for _, value in members],
        where="pre",
        color="black",
        linewidth=1.4,
        label="Pareto front",
    )


def _place(row: Row) -> PlotPoint | None:
    ratio = row.measured.ratios.compression if row.measured else None
    return (ratio, row.measured) if ratio is not None and row.measured is not None else None
