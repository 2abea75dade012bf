"""Figures of the boundary: how wrong pixels are by their distance to another class, and how well outlines agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from flexseg.analysis.figures.ablation import shown_rows
from flexseg.analysis.figures.canvas import Canvas
from flexseg.analysis.figures.style import GREY, series
from flexseg.analysis.stats.definitions import ring_names
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.write import target_title


class Band(NamedTuple):
    """One line of facets: what the y axis says, the quantity at each place of the x axis, and whether it is paired."""

    label: str
    quantities: Sequence[str]
    paired: bool = False


def ring_figure(page: Canvas, scores: Scores) -> None:
    """Share of wrong pixels by distance to the boundary, on every target, and its paired difference to the baseline."""
    rows = _comparable(page, scores)
    if not rows:
        return
    protocol = scores.benchmark.protocol
    names = ring_names(protocol)
    inner, where = 0, []
    for name, outer in zip(names, [*protocol.rings, None], strict=True):
        where.append(f"{_short(name)} {_span(inner, outer)}")
        inner = outer or inner
    page.caption(
        "Error by distance to the boundary. Above: share of wrong pixels among those at a distance to the nearest "
        f"pixel of another class in the truth (chessboard distance: {', '.join(where)}). Mark: mean over seeds; bar: "
        f"95 % t-interval over seeds (none for a single seed). Below: {_paired(scores)}; below zero is better. "
        "Definitions: docs/metrics.md.",
        most=430,
    )
    errors = [f"{name} error" for name in names]
    ticks = [_short(name) for name in names]
    bands = [Band("wrong pixels (%)", errors), Band("difference (points)", errors, paired=True)]
    _grid(page, scores, rows, bands, ticks, "")


def agreement_figure(page: Canvas, scores: Scores) -> None:
    """Boundary IoU and boundary F1 by the width within which an outline counts as found, on every target."""
    rows = _comparable(page, scores)
    if not rows:
        return
    widths = scores.benchmark.protocol.boundary_widths
    page.caption(
        "Agreement of outlines by band width d. Boundary IoU: IoU of what lies at most d px inside a class's outline, "
        "in truth and in prediction (Cheng et al., 2021). Boundary F1: harmonic mean of the shares of predicted and "
        "of true contour pixels that have one of the other at most d px away (Csurka et al., 2013). Both are means "
        "over the classes with a boundary in the truth, and rise with d by definition. Mark: mean over seeds; bar: "
        f"95 % t-interval over seeds. Differences: {_paired(scores)}; above zero is better. Definitions: "
        "docs/metrics.md.",
        most=HEIGHT_OF_FOUR,
    )
    iou, f1 = ([f"boundary {name} ({width} px)" for width in widths] for name in ("IoU", "F1"))
    bands = [
        Band("boundary IoU (%)", iou), Band("difference (points)", iou, paired=True),
        Band("boundary F1 (%)", f1), Band("difference (points)", f1, paired=True),
    ]  # fmt: skip
    _grid(page, scores, rows, bands, [str(width) for width in widths], "band width d (px)")


HEIGHT_OF_FOUR = 520.0
"""Points of a page that four lines of facets take."""


def _comparable(page: Canvas, scores: Scores) -> list[str]:
    rows = [row for row in shown_rows(scores) if any(run.targets for run in scores.records.of_row(row))]
    if not rows:
        page.nothing("Neither the baseline nor a full row has a finished run.")
    return rows


def _short(name: str) -> str:
    return name.removesuffix("-boundary").removeprefix("deep-")


def _span(inner: int, outer: int | None) -> str:
    if outer is None:
        return f"beyond {inner} px"
    return f"{outer} px" if outer == inner + 1 else f"{inner + 1}–{outer} px"


def _paired(scores: Scores) -> str:
    title = scores.benchmark.row(scores.benchmark.reference).title
    return (
        f"paired to “{title}” (same seeds and images), 95 % interval over seeds and test images, not adjusted; filled: "
        "it excludes zero after Holm over the targets"
    )


def _grid(
    page: Canvas, scores: Scores, rows: list[str], bands: Sequence[Band], ticks: list[str], axis_label: str
) -> None:  # fmt: skip
    """A line of facets for each band, a facet for each target; every row is a series."""
    if axis_label:
        page.axis_label(axis_label)
    targets, reference = scores.benchmark.targets, scores.benchmark.reference
    handles: dict[str, ErrorbarContainer] = {}
    shown = [band for band in bands if not band.paired or any(row != reference for row in rows)]
    # A legend stands above the axes, so its place is taken before they are laid out.
    page.figure.subplots(len(shown), len(targets), sharex=True, sharey="row", squeeze=False)
    grid = np.array(page.figure.axes, dtype=object).reshape(len(shown), len(targets))
    for line, band in zip(grid, shown, strict=True):
        for axis, target in zip(line, targets, strict=True):
            for index, row in enumerate(rows):
                if band.paired and row == reference:
                    continue
                shift = (index - (len(rows) - 1) / 2) * 0.14
                if band.paired:
                    _paired_marks(axis, scores, row, target, band, index, shift, page.scale)
                else:
                    drawn = _marks(axis, scores, row, target, band, index, shift, page.scale)
                    handles.setdefault(scores.benchmark.row(row).title, drawn)
            if band.paired:
                axis.axhline(0, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
            axis.set_xticks(np.arange(len(ticks)), ticks, rotation=30 if max(map(len, ticks)) > 4 else 0)
            axis.set_xlim(-0.5, len(ticks) - 0.5)
            axis.locator_params(axis="y", nbins=4)
        line[0].set_ylabel(band.label)
    room = (page.right - page.left) / len(targets) - 20
    for axis, target in zip(grid[0], targets, strict=True):
        axis.set_title("\n".join(page.wrap(target_title(scores, target), room, 9)))
    page.legend(handles)
    page.lay_out()


def _marks(
    axis: Axes, scores: Scores, row: str, target: str, band: Band, index: int, shift: float, scale: float
) -> ErrorbarContainer:  # fmt: skip
    """Means of one row with their t-intervals; the handle for a legend."""
    means = [scores.mean(row, target, name) for name in band.quantities]
    values, halves = [mean.value for mean in means], [mean.half for mean in means]
    return axis.errorbar(
        np.arange(len(means)) + shift, values, yerr=halves, capsize=1.5, elinewidth=0.9, **_style(index, scale)
    )


def _paired_marks(
    axis: Axes, scores: Scores, row: str, target: str, band: Band, index: int, shift: float, scale: float
) -> None:  # fmt: skip
    """Paired differences of one row to the reference; hollow where none could be shown."""
    style = _style(index, scale)
    for place, name in enumerate(band.quantities):
        found = scores.against(row, scores.benchmark.reference, name)[target]
        ends = [[found.value - found.low], [found.high - found.value]]
        face = style["color"] if found.shown else "white"
        axis.errorbar(
            [place + shift], [found.value], yerr=ends, capsize=1.5, elinewidth=0.9, markerfacecolor=face, **style
        )


def _style(index: int, scale: float) -> dict[str, Any]:
    return series(index) | {"linestyle": "none", "markersize": 4 * scale}
