"""Dial plots: mIoU against one setting, from the rows of a study (``ablation.dials`` of the benchmark file)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from numpy.typing import NDArray

from flexseg.analysis.figures.canvas import Canvas
from flexseg.analysis.figures.style import GREY, series
from flexseg.analysis.stats.scores import Scores
from flexseg.benchmark.ablation import Dial

ENOUGH = 3
"""Values that a series must have before a dial is drawn: two are a comparison, and stand elsewhere."""
LOGARITHMIC = 8.0
"""Positive values that span more than this factor stand on a logarithmic axis."""


def dial_figure(page: Canvas, scores: Scores, name: str) -> None:
    """mIoU on each average against the dial ``name``, a line a series; paired differences below."""
    dial = scores.benchmark.ablation.dials[name]
    missing = _missing(scores, dial)
    how = f"--config study={name}"
    there = [sum(bool(row) and row not in missing for row in rows) for rows in dial.series.values()]
    if max(there) < ENOUGH:
        page.nothing(f"Fewer than {ENOUGH} of its values were run: {how}")
        return
    labels = list(dial.series)
    base = scores.benchmark.row(scores.benchmark.reference).title
    below = (
        f"paired difference to “{labels[0]}” at the same value" if len(labels) > 1 else f"paired difference to “{base}”"
    )
    gaps = f" Gaps: {', '.join(_titles(scores, missing))} not run or not finished ({how})." if missing else ""
    page.caption(
        f"{dial.title}. Above: mIoU on each average; mark: mean over seeds, bar: 95 % t-interval over seeds (none for "
        f"a single seed). Below: {below} (same seeds, same test images), 95 % interval over seeds and test images, not "
        f"adjusted; filled: it excludes zero.{gaps}",
        most=430,
    )
    columns = list(scores.benchmark.averages) or list(scores.benchmark.targets)
    places, ticks, log = axis_of(dial)
    joined = not any(isinstance(value, str) for value in dial.x)
    page.axis_label(dial.axis or dial.title)
    axes = page.figure.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False, height_ratios=[3, 2])
    handles: dict[str, ErrorbarContainer] = {}
    for place, column in enumerate(columns):
        above, beneath = axes[0, place], axes[1, place]
        above.set_title(column)
        for index, label in enumerate(labels):
            at = _nudged(places, index - (len(labels) - 1) / 2, log)
            handles.setdefault(label, _means(above, scores, dial.series[label], column, at, index, joined, page.scale))
            _differences(beneath, scores, dial, label, column, at, index, page.scale)
        beneath.axhline(0, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
        if log:
            beneath.set_xscale("log")
            beneath.minorticks_off()
        beneath.set_xlim(*_nudged(places, -8, log)[:1], *_nudged(places, 8, log)[-1:])  # gaps at the ends stay
        beneath.set_xticks(places, ticks, rotation=25 if max(map(len, ticks)) > 6 else 0)
    axes[0, 0].set_ylabel("mIoU (%)")
    axes[1, 0].set_ylabel("difference (points)")
    run = {label for label in labels if any(row and row not in missing for row in dial.series[label])}
    page.legend({label: handle for label, handle in handles.items() if label in run})
    page.lay_out()


def axis_of(dial: Dial) -> tuple[NDArray[np.float64], list[str], bool]:
    """Where the values of ``x`` stand, what is written there, and whether the axis is logarithmic.

    Numbers stand at their value, names one beside the other.
    """
    values = [value for value in dial.x if not isinstance(value, str)]
    if len(values) < len(dial.x):
        return np.arange(len(dial.x), dtype=np.float64), [_text(value) for value in dial.x], False
    numbers = np.array(values, dtype=np.float64)
    log = bool(numbers.min() > 0 and numbers.max() / numbers.min() > LOGARITHMIC)
    return numbers, [_text(value) for value in values], log


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _nudged(places: NDArray[np.float64], by: float, log: bool) -> NDArray[np.float64]:
    """The places of one series, a little beside those of the others, so that its bars are seen."""
    if log:
        return places * float(places.max() / places.min()) ** (0.012 * by)
    return places + 0.012 * by * (places.max() - places.min())


def _missing(scores: Scores, dial: Dial) -> list[str]:
    """The dial's rows that have no value on the main average: not selected, or without a finished run."""
    rows = scores.benchmark.rows
    return [row for row in dial.rows if row not in rows or not scores.mean(row, scores.main).n]


def _titles(scores: Scores, rows: Sequence[str]) -> list[str]:
    known = scores.benchmark.rows
    return [f"“{scores.benchmark.row(row).title}”" if row in known else row for row in rows]


def _means(
    axis: Axes, scores: Scores, rows: Sequence[str | None], column: str, places: NDArray[np.float64], index: int,
    joined: bool, scale: float,
) -> ErrorbarContainer:  # fmt: skip
    """The means of ``rows``, ``joined`` by a line that breaks where one is missing; its handle."""
    known = scores.benchmark.rows
    means = [scores.mean(row, column) if row in known else None for row in rows]
    values = np.array([mean.value if mean else np.nan for mean in means])
    halves = np.array([mean.half if mean else np.nan for mean in means])
    style = series(index) | ({} if joined else {"linestyle": "none"})
    return axis.errorbar(places, values, yerr=halves, capsize=2, elinewidth=0.9, markersize=5 * scale, **style)


def _differences(
    axis: Axes, scores: Scores, dial: Dial, label: str, column: str, places: NDArray[np.float64], index: int,
    scale: float,
) -> None:  # fmt: skip
    """Paired differences of a series to the first one, or of the only one to the reference row."""
    rows, first = dial.series[label], next(iter(dial.series.values()))
    others = first if len(dial.series) > 1 else [scores.benchmark.reference] * len(rows)
    style = series(index) | {"linestyle": "none", "markersize": 5 * scale}
    for place, row, other in zip(places, rows, others, strict=True):
        if row is None or other is None or row == other or not {row, other} <= set(scores.benchmark.rows):
            continue
        difference = scores.against(row, other)[column]
        ends = [[difference.value - difference.low], [difference.high - difference.value]]
        face = style["color"] if difference.p < 0.05 else "white"
        axis.errorbar([place], [difference.value], yerr=ends, capsize=2, elinewidth=0.9, markerfacecolor=face, **style)
