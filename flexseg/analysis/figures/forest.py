"""The picture of the claims: a line each, with what was measured, what was published, and what would matter."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import seaborn.objects as so
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from flexseg.analysis.figures.marks import SPACING, draw_plot, edge_text, fitting, label_x
from flexseg.analysis.figures.style import GREY, INK, PALETTE, RULE, STYLE, figure_of, literal, new_figure, styled

VERDICTS = {"reproduced": "✓", "refuted": "✗", "undecided": "?"}
REACH = 3.0
"""How many times as far out as the largest size of interest or published one an effect is still drawn."""
BAND, MARK = 0.38, 0.19


def draw_forest(frame: pd.DataFrame, ax: Axes | None) -> Figure:
    """Dots with intervals, one line per contrast; of two sides the second a little lower, in another colour.

    Grey behind a line: from no effect to the smallest one of interest; diamond: the published size. An effect far out
    is printed at the edge. On the right the verdict of each side.
    """
    lines = frame.drop_duplicates("contrast").sort_values("contrast").reset_index(drop=True)
    sides = list(dict.fromkeys(frame["side"]))
    shift = {side: MARK * (2 * place - (len(sides) - 1)) for place, side in enumerate(sides)}
    place = {contrast: index for index, contrast in enumerate(lines["contrast"])}
    frame = frame.assign(place=[place[c] + shift[s] for c, s in zip(frame["contrast"], frame["side"], strict=True)])
    known = np.nan_to_num(lines[["smallest", "published"]].to_numpy(np.float64))
    limit = REACH * float(np.quantile(np.abs(known).max(1), 0.8))
    near = frame[frame["value"].abs() <= limit]
    labels, tall, size = fitting(lines["title"], 0.22, 62, most=180)
    figure = new_figure(0.8 + tall) if ax is None else figure_of(ax)
    colours = so.Nominal(dict(zip(sides, [INK, PALETTE[1]], strict=False)), order=sides)
    plot = so.Plot(near, x="value", y="place", color="side", edgecolor="side")
    plot = plot.add(so.Range(linewidth=1), xmin="low", xmax="high", orient="y", legend=False)
    for shown, face in ((True, {}), (False, {"color": "white"})):
        part = near[near["shown"].astype(bool) == shown]
        plot = plot.add(so.Dot(pointsize=4.2, edgewidth=1, **face), data=part, legend=False)
    draw_plot(plot.scale(color=colours, edgecolor=colours).label(x="", y=""), ax or figure)
    with styled():
        axes = figure.axes[0] if ax is None else ax
        _decorate(axes, lines, limit)
        axes.set_yticks(range(len(lines)), labels, linespacing=SPACING, fontsize=size)
        for each in frame.itertuples():
            if abs(each.value) > limit:
                edge_text(axes, each.place, each.value, bool(each.shown))
        _verdicts(axes, frame, sides)
        if ax is None:
            figure.legend(handles=_legend(sides), loc="outside upper center", ncols=4)
        label_x(ax or figure, "effect in the claimed direction (points)")
    return literal(figure, ax)


def _decorate(axes: Axes, lines: pd.DataFrame, limit: float) -> None:
    """The band of what would not matter, the published sizes, the rules between families, and the limits."""
    for index, line in enumerate(lines.itertuples()):
        axes.barh(index, line.smallest, height=2 * BAND, left=0, color=RULE, alpha=0.6, linewidth=0, zorder=0)
        if line.published is not None and abs(line.published) <= limit:
            axes.plot(line.published, index, marker="D", markersize=4, color="none", markeredgecolor=GREY, zorder=2)
    for index, (above, below) in enumerate(pairwise(lines["family"])):
        if above != below:
            axes.axhline(index + 0.5, color=INK, linewidth=0.5)
    axes.axvline(0, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _verdicts(axes: Axes, frame: pd.DataFrame, sides: list[str]) -> None:
    """The verdict on each claim, to the right of its first line."""
    size = float(STYLE["ytick.labelsize"]) - len(sides) + 1
    for each in frame[frame["n"] > 0].drop_duplicates(["side", "claim"]).itertuples():
        axes.text(
            1.01, each.place, f"{VERDICTS[each.verdict]} {each.verdict}, n = {each.n}",
            transform=axes.get_yaxis_transform(), va="center", fontsize=size,
            color=[INK, PALETTE[1]][sides.index(each.side)],
        )  # fmt: skip


def _legend(sides: list[str]) -> list[Line2D | Patch]:
    marks: list[Line2D | Patch] = [
        Line2D([], [], color=[INK, PALETTE[1]][place], marker="o", markersize=4.2, linewidth=1, label=side)
        for place, side in enumerate(sides)
    ]
    diamond = Line2D([], [], linestyle="", marker="D", markersize=4, color="none", markeredgecolor=GREY)
    diamond.set_label("published")
    return [*marks, diamond, Patch(facecolor=RULE, alpha=0.6, label="less than would matter")]
