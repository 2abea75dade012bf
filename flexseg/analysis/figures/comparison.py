"""Figures of the comparison, and what other figures share. Each fills the body of a canvas and gives its caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from flexseg.analysis.figures.canvas import Canvas
from flexseg.analysis.figures.style import GREY, INK, RULE, colour, text_width
from flexseg.analysis.stats.formats import number
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference
from flexseg.analysis.tables.domains import class_names, class_places
from flexseg.analysis.tables.write import Notes, target_title

FILLED = (
    "Filled (or bold): the interval excludes zero; hollow: no difference could be shown. An arrow with a number: "
    "off the scale of the others."
)
ROW = 42.0
"""The most that a line of a figure takes, in points."""


@dataclass(frozen=True)
class Dot:
    """A value with its interval; ``filled`` if a difference was shown. NaN values are not drawn."""

    value: float
    low: float
    high: float
    filled: bool = True


def difference_dot(difference: Difference) -> Dot:
    """The dot of a paired difference."""
    return Dot(difference.value, difference.low, difference.high, difference.shown)


def off_scale(column: Sequence[Dot]) -> list[bool]:
    """Which dots are so far from zero that drawing them to scale would hide the others.

    These are at most a third of the dots, each over 3 times as far out as the next one that is drawn.
    """
    reach = [abs(dot.value) if np.isfinite(dot.value) else 0.0 for dot in column]
    ranked = sorted(reach, reverse=True)
    for larger, smaller in pairwise(ranked[: 1 + max(1, len(column) // 3)]):
        if smaller > 0 and larger > 3 * smaller:
            return [each >= larger for each in reach]
    return [False] * len(column)


def facets(
    page: Canvas, titles: Sequence[str], labels: Sequence[str], dots: Sequence[Sequence[Dot]], axis: str,
    lines: Sequence[float], groups: Sequence[int] = (), label_width: float = 150, clip: bool = False,
) -> None:  # fmt: skip
    """One facet a column, one line a row: dots with intervals.

    Args:
        lines: where each facet has its dashed vertical line.
        groups: a number for each row; rows of one number have one colour, and a rule stands between two numbers.
        clip: whether rows far off in some facet (:func:`off_scale`) are printed at the edges instead of drawn.
    """
    page.axis_label(axis)
    axes = page.figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    places = np.arange(len(labels))[::-1]
    inks = [colour(group) for group in groups] or [INK] * len(labels)
    away = [clip and any(flags) for flags in zip(*map(off_scale, dots), strict=True)]
    texts = ["\n".join(page.wrap(label, page.size(label_width), 8)) for label in labels]
    taken = max((text_width(line, page.size(8)) for text in texts for line in text.split("\n")), default=0.0)
    room = (page.right - page.left - taken) / len(titles)
    for axes_, title, column, line in zip(axes, titles, dots, lines, strict=True):
        if np.isfinite(line):
            axes_.axvline(line, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
        for place, dot, ink, far in zip(places, column, inks, away, strict=True):
            _dot(axes_, place, dot, ink, far, page.scale)
        for row in range(1, len(groups)):
            if groups[row] != groups[row - 1]:
                axes_.axhline(places[row] + 0.5, color=INK, linewidth=0.5)
        axes_.set_title("\n".join(page.wrap(title, room - 4, 9)))
        axes_.tick_params(axis="y", length=0)
        axes_.set_ylim(-0.6, len(labels) - 0.4)
        axes_.grid(axis="y", color=RULE, linewidth=0.3)
        axes_.margins(x=0.14)
        axes_.locator_params(axis="x", nbins=3 if room > 60 else 2)
    axes[0].set_yticks(places, texts)
    page.lay_out()


def _dot(axis: Axes, place: float, dot: Dot, ink: str, far: bool, scale: float) -> None:
    if not np.isfinite(dot.value):
        transform = axis.get_yaxis_transform()
        axis.text(0.5, place, "–", transform=transform, ha="center", va="center", color=GREY, backgroundcolor="white")
        return
    if far:
        text = f"◂ {number(dot.value, sign=True)}" if dot.value < 0 else f"{number(dot.value, sign=True)} ▸"
        x, align = (0.05, "left") if dot.value < 0 else (0.95, "right")
        axis.text(
            x, place, text, transform=axis.get_yaxis_transform(), ha=align, va="center", color=ink, fontsize=8 * scale,
            weight="bold" if dot.filled else "normal", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
        return
    if np.isfinite(dot.low):
        axis.plot(
            [dot.low, dot.high], [place] * 2, color=ink, linewidth=1.1, marker="|", markersize=5 * scale, zorder=2
        )
    face = ink if dot.filled else "white"
    axis.plot([dot.value], [place], marker="o", color=ink, markerfacecolor=face, markersize=4.8 * scale, zorder=3)


def miou_figure(page: Canvas, scores: Scores) -> None:
    """mIoU of every row on every target and average."""
    benchmark, notes = scores.benchmark, Notes(scores)
    labels = [notes.title(row) for row in benchmark.rows]
    page.caption(
        f"mIoU in percent on each target and average. Dot: mean over seeds (n = {_seeds(scores)}); bar: 95 % "
        "t-interval over seeds (none for a single seed). Dashed: the reference row. Intervals of two rows may "
        "overlap although their paired difference is shown: rows share seeds and test images, so compare rows by the "
        f"figure of paired differences.{_explained(notes)}",
        most=ROW * len(benchmark.rows) + 60,
    )
    dots = []
    for column in scores.columns:
        means = [scores.mean(row, column) for row in benchmark.rows]
        dots.append([Dot(mean.value, mean.value - mean.half, mean.value + mean.half) for mean in means])
    zero = [scores.mean(benchmark.reference, column).value for column in scores.columns]
    facets(page, [target_title(scores, column) for column in scores.columns], labels, dots, "mIoU (%)", zero)


def _explained(notes: Notes) -> str:
    """The notes whose marks stand on the labels, for the end of a caption."""
    return "".join(f" {mark} {note}." for mark, note in notes.lines())


def _seeds(scores: Scores) -> str:
    counts = {scores.mean(row, scores.main).n for row in scores.benchmark.rows}
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)}–{max(counts)}"


def difference_figure(page: Canvas, scores: Scores) -> None:
    """Paired differences of every row to the reference, on every target and average."""
    benchmark, notes = scores.benchmark, Notes(scores)
    rows = [row for row in benchmark.rows if row != benchmark.reference]
    if not rows:
        page.nothing("Only the reference row was selected: there is no difference to show.")
        return
    labels = [notes.title(row) for row in rows]
    page.caption(
        f"Paired difference in mIoU to “{benchmark.row(benchmark.reference).title}” (same seeds, same test images; n "
        f"= {_seeds(scores)} seeds). Bar: 95 % interval over seeds and test images (none for a single seed), not "
        f"adjusted; for single targets, filled goes by the p-value after Holm over the targets. {FILLED}"
        f"{_explained(notes)}",
        most=ROW * len(rows) + 60,
    )
    against = [scores.against(row, benchmark.reference) for row in rows]
    dots = [[difference_dot(found[column]) for found in against] for column in scores.columns]
    titles = [target_title(scores, column) for column in scores.columns]
    facets(
        page,
        titles,
        labels,
        dots,
        "difference in mIoU (points)",
        [0.0] * len(titles),
        clip=True,
    )


def heatmap(
    page: Canvas, blocks: Sequence[tuple[str, NDArray[np.float64], bool]], labels: Sequence[str], heads: Sequence[str],
    breaks: Sequence[int] = (), tops: Sequence[tuple[float, str]] = (), share: bool = False,
) -> None:  # fmt: skip
    """Blocks of numbers on colour, one under the other: (title, (rows, columns), diverging).

    The numbers carry the meaning; the colour only guides, and differs in lightness. ``breaks`` are columns before
    which a gap is drawn, ``tops`` headings (position, text) over groups of columns.
    """
    axes = page.figure.subplots(len(blocks), 1, sharex=True, squeeze=False)[:, 0]
    names = ["\n".join(page.wrap(label, page.size(150), 7.5)) for label in labels]
    high, wide = (page.floor - page.y) * 0.72, page.right - page.left - page.size(150)
    size = min(page.size(8.0), high / max(len(labels) * len(blocks), 8), wide / max(len(heads), 1) / 2.4)
    for axis, (title, values, diverging) in zip(axes, blocks, strict=True):
        finite = values[np.isfinite(values)]
        reach = max(float(np.quantile(np.abs(finite), 0.85)), 1e-9) if diverging and len(finite) else 1.0
        low, high = (-reach, reach) if diverging else (0.0, float(finite.max(initial=1.0)))
        scale: dict[str, Any] = {"cmap": "PuOr" if diverging else "Blues", "vmin": low * 1.8, "vmax": high * 1.8}
        shades = np.clip(values, -reach, reach) if diverging else values
        axis.pcolormesh(shades, edgecolors="white", linewidth=0.6, **scale)
        for (row, column), value in np.ndenumerate(values):
            text = number(float(value), 1, sign=diverging)
            axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size)
        for place in breaks:
            axis.axvline(place, color=INK, linewidth=0.8)
        axis.set_yticks(np.arange(len(labels)) + 0.5, names, fontsize=page.size(7.5))
        axis.set_ylim(len(labels), 0)
        axis.set_title(title, loc="left", pad=page.size(16) if tops else 4)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        for centre, text in tops:
            axis.text(centre, -0.12, text, ha="center", va="bottom", fontsize=page.size(8), style="italic")
    slanted = max(map(len, heads)) > 7
    axes[-1].set_xticks(
        np.arange(len(heads)) + 0.5, heads, rotation=35 if slanted else 0, ha="right" if slanted else "center"
    )
    page.lay_out()


def class_figure(page: Canvas, scores: Scores) -> None:
    """IoU of each class, and its difference to the reference."""
    rows, notes, places = list(scores.benchmark.rows), Notes(scores), class_places(scores)
    labels = [notes.title(row) for row in rows]
    page.caption(
        f"IoU in percent of each class: mean over seeds (n = {_seeds(scores)}), then over the targets whose truth "
        f"holds the class; below, the difference to the reference row, without intervals: {len(places)} classes × rows "
        "are for looking, not "
        f"for claims. A dash: the class is in no truth, or no run was finished.{_explained(notes)}",
        most=2 * ROW * len(rows) + 100,
    )
    values = np.array([scores.class_average(row)[places] for row in rows])
    reference = values[rows.index(scores.benchmark.reference)]
    blocks = [("IoU (%)", values, False), ("difference to the reference (points)", values - reference, True)]
    heatmap(page, blocks, labels, class_names(scores))


def condition_figure(page: Canvas, scores: Scores) -> None:
    """mIoU on each condition of each target, and its difference to the reference."""
    benchmark, notes = scores.benchmark, Notes(scores)
    groups = [(target, list(scores.conditions(target).items())) for target in benchmark.targets]
    pairs = [(target, condition) for target, found in groups for condition, _ in found]
    if not pairs:
        page.nothing("No run was finished.")
        return
    labels = [notes.title(row) for row in benchmark.rows]
    page.caption(
        f"mIoU in percent on the images of one condition, over the classes that occur in them: mean over seeds (n = "
        f"{_seeds(scores)}); below, the difference to the reference row. In brackets: number of images."
        f"{_explained(notes)}",
        most=2 * ROW * len(benchmark.rows) + 130,
    )
    values = np.array([[scores.condition_mean(row, *pair).value for pair in pairs] for row in benchmark.rows])
    reference = values[list(benchmark.rows).index(benchmark.reference)]
    tops: list[tuple[float, str]] = []
    breaks, start = [], 0
    for target, found in groups:
        if found:
            tops.append((start + len(found) / 2, target_title(scores, target)))
            breaks.append(start)
        start += len(found)
    heads = [f"{condition} ({images})" for _, found in groups for condition, images in found]
    blocks = [("mIoU (%)", values, False), ("difference to the reference (points)", values - reference, True)]
    heatmap(page, blocks, labels, heads, breaks[1:], tops)
