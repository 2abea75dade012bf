"""How seaborn draws this suite's frames: dots and series with intervals, curves with bands, and heat maps.

The intervals come with the frames, so seaborn's object interface draws them as they are; its own would resample seeds.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import seaborn.objects as so
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flexseg.analysis.figures.style import (
    GREY,
    INK,
    LINES,
    MARKERS,
    PALETTE,
    RULE,
    STYLE,
    figure_of,
    literal,
    new_figure,
    short,
    styled,
)
from flexseg.analysis.stats.formats import DASH, number

MOST = 8.2
"""Inches: the most that a figure is high."""
SPACING = 0.9
"""Of the lines of a heading or label, in font sizes as the font gives them."""
LOGARITHMIC = 8.0
"""Positive values that span more than this factor stand on a logarithmic axis."""


def draw_curves(frame: pd.DataFrame, labels: dict[str, str], ax: Axes | None) -> Figure:
    """Means over seeds as lines and their range as bands, over iterations; a facet for each of the ``labels``."""
    frame = frame[frame["quantity"].isin(list(labels))]
    labels = {name: wrap(label, 22) for name, label in labels.items() if (frame["quantity"] == name).any()}
    if frame.empty:
        raise ValueError("the frame holds none of the quantities that are to be drawn")
    frame = frame.assign(label=frame["quantity"].map(labels))
    columns = len(labels) if len(labels) <= 4 else 3
    figure = new_figure(0.35 + 1.75 * -(-len(labels) // columns)) if ax is None else figure_of(ax)
    plot = so.Plot(frame, x="iteration", y="value", color="title", linestyle="title")
    if ax is None:
        plot = plot.facet("label", order=list(labels.values()), wrap=columns).share(y=False)
    plot = plot.add(so.Line(), so.Agg()).add(so.Band(alpha=0.2), so.Est(errorbar=("pi", 100)), legend=False)
    plot = plot.scale(color=_cycle(PALETTE, frame["title"]), linestyle=_cycle(LINES, frame["title"]))
    draw_plot(plot.scale(x=so.Continuous().tick(upto=4)).label(y=""), ax or figure)
    for axes in figure.axes if ax is None else ():
        axes.title.set_linespacing(SPACING)
    return literal(figure, ax)


def off_scale(values: Sequence[float]) -> list[bool]:
    """Which values are so far from zero that drawing them to scale would hide the others.

    These are at most a third of the values, each over 3 times as far out as the next one that is drawn.
    """
    reach = np.abs(np.nan_to_num(np.asarray(values, dtype=np.float64)))
    ranked = np.sort(reach)[::-1]
    for larger, smaller in pairwise(ranked[: 1 + max(1, len(reach) // 3)]):
        if smaller > 0 and larger > 3 * smaller:
            return (reach >= larger).tolist()
    return [False] * len(reach)


def draw_plot(plot: so.Plot, on: Axes | Figure) -> None:
    """Let seaborn draw in this library's style; the legend, if any, goes above the axes."""
    with warnings.catch_warnings(), styled():
        warnings.filterwarnings("ignore", "The copy keyword is deprecated")  # seaborn 0.13.2 under pandas 3
        plot.theme(STYLE).on(on).plot()
        figure = on if isinstance(on, Figure) else figure_of(on)
        for axes in figure.axes:
            for marks in axes.collections:
                if isinstance(marks, PathCollection):
                    marks.set_zorder(3)  # a hollow dot hides the bar behind it
        legends, figure.legends[:] = list(figure.legends), []
        for legend in legends:
            texts = [short(text.get_text()) for text in legend.get_texts()]
            handles: list[Any] = list(legend.legend_handles)
            if isinstance(on, Figure):
                figure.legend(handles, texts, loc="outside upper center", ncols=min(len(texts), 4))
            else:
                on.legend(handles, texts)


def _cycle(values: Sequence[Any], names: pd.Series) -> so.Nominal:
    """One of ``values`` for each name, as it comes; of a categorical column in the order of all its categories."""
    known = names.cat.categories if isinstance(names.dtype, pd.CategoricalDtype) else names.unique()
    place = {name: index for index, name in enumerate(known)}
    present = [name for name in known if (names == name).any()]
    return so.Nominal({name: values[place[name] % len(values)] for name in present}, order=present)


def label_x(on: Axes | Figure, label: str) -> None:
    label = short(label)
    if isinstance(on, Figure):
        on.supxlabel(label, fontsize=STYLE["axes.labelsize"])
    else:
        on.set_xlabel(label)


def _slant(axes: Axes, at: NDArray[Any], texts: Sequence[str], slanted: bool) -> None:
    """Label the x axis, slanted where the texts are too long to stand beside each other."""
    axes.set_xticks(
        at,
        [short(text, 40) for text in texts],
        rotation=30 if slanted else 0,
        ha="right" if slanted else "center",
        rotation_mode="anchor",
    )


def fitting(
    titles: Iterable[str], pitch: float, width: int, blocks: int = 1, most: int = 80
) -> tuple[list[str], float, float]:
    """Labels of rows that stand ``pitch`` inches apart, the height of each of ``blocks``, and the size of their type.

    Labels of more than ``width`` characters are broken; where the page is too low for that they stand in one line, as
    small as they must be.
    """
    labels = [wrap(title, width, most) for title in titles]
    tall, room = sum(pitch + 0.11 * label.count("\n") for label in labels), (MOST - 1) / blocks
    size = float(STYLE["ytick.labelsize"])
    if tall <= room:
        return labels, tall, size
    labels = [label.replace("\n", " ") for label in labels]
    tall = min(room, pitch * len(labels))
    return labels, tall, min(size, 0.85 * 72 * tall / len(labels))


def wrap(text: str, width: int, most: int = 80) -> str:
    """``most`` characters of ``text`` in lines of ``width``; only a word that no line could hold is broken."""
    text = short(text, most)
    return textwrap.fill(text, width, break_long_words=any(len(word) > 40 for word in text.split()))


def draw_dots(
    frame: pd.DataFrame, key: str, label: str, ax: Axes | None, *, zero: bool = False, clip: bool = False,
    section: str = "", lines: Mapping[str, float] | None = None,
) -> Figure:  # fmt: skip
    """One line per ``key``, one facet per target: dots with intervals, hollow where no difference was shown.

    Args:
        zero: whether a dashed line stands at 0. lines: where else one stands, by the facet's title.
        clip: whether keys far off in some facet (:func:`off_scale`) are printed at the edges instead of drawn.
        section: the column whose values have a colour each, with a rule between two of them.
    """
    keys, facets = list(dict.fromkeys(frame[key])), list(dict.fromkeys(frame["target_title"]))
    first = frame.drop_duplicates(key)
    if ax is not None and len(facets) > 1:
        raise ValueError(f"ax takes one target, and the frame holds {', '.join(facets)}: filter it")
    frame = frame.assign(place=frame[key].map({each: place for place, each in enumerate(keys)}))
    far: set[Any] = set()
    for _, part in frame.groupby("target_title") if clip else ():
        far |= set(part[key][off_scale(part["value"].tolist())])
    drawn = frame[~frame[key].isin(far)]
    labels, tall, size = fitting(first["title"], 0.21, 36 if len(facets) > 4 else 60)
    height = 0.75 + tall
    figure = new_figure(height) if ax is None else figure_of(ax)
    colours = {"color": section, "edgecolor": section} if section else {}
    plot = so.Plot(drawn, x="value", y="place", **colours)
    plot = plot.facet("target_title", order=facets).share(x=False) if ax is None else plot
    ink = {} if section else {"color": INK}
    plot = plot.add(so.Range(linewidth=1, **ink), xmin="low", xmax="high", orient="y", legend=False)
    for shown, face in ((True, ink), (False, {"color": "white"} | ({} if section else {"edgecolor": INK}))):
        part = drawn[drawn["shown"].astype(bool) == shown]
        plot = plot.add(so.Dot(pointsize=4.2, edgewidth=1, **face), data=part, legend=False)
    if section:
        scale = _cycle(PALETTE, frame[section])
        plot = plot.scale(color=scale, edgecolor=scale)
    draw_plot(plot.label(x="", y="").scale(x=so.Continuous().tick(upto=3 if len(facets) < 7 else 2)), ax or figure)
    with styled():
        for axes, facet in zip(figure.axes if ax is None else [ax], facets, strict=True):
            at = 0.0 if zero else (lines or {}).get(facet, np.nan)
            if np.isfinite(at):
                axes.axvline(at, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
            if section:
                for place, (above, below) in enumerate(pairwise(first[section])):
                    if above != below:
                        axes.axhline(place + 0.5, color=INK, linewidth=0.5)
            axes.set_title(wrap(facet, max(12, 90 // len(facets))), linespacing=SPACING)
            axes.set_ylim(len(keys) - 0.4, -0.6)
            axes.set_yticks(range(len(keys)), labels, linespacing=SPACING, fontsize=size)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="y", color=RULE, linewidth=0.3)
            axes.set_axisbelow(True)
            axes.margins(x=0.12)
            for entry in frame[frame["target_title"] == facet].itertuples():
                if getattr(entry, key) in far or not np.isfinite(entry.value):
                    edge_text(axes, entry.place, entry.value, bool(entry.shown))
        label_x(ax or figure, label)
    return literal(figure, ax)


def edge_text(axes: Axes, place: float, value: float, bold: bool) -> None:
    """Print a value that is off the scale at its edge; a dash for one that is not known."""
    x, align, text = 0.5, "center", DASH
    if np.isfinite(value):
        x, align = (0.03, "left") if value < 0 else (0.97, "right")
        text = f"◂ {number(value, sign=True)}" if value < 0 else f"{number(value, sign=True)} ▸"
    axes.text(
        x, place, text, transform=axes.get_yaxis_transform(), ha=align, va="center", color=GREY,
        fontsize=STYLE["ytick.labelsize"], weight="bold" if bold else "normal",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )  # fmt: skip


def axis_of(values: Sequence[Any]) -> tuple[dict[Any, float], list[str], bool]:
    """Where the values of ``x`` stand, what is written there, and whether the axis is logarithmic.

    Numbers stand at their value, names one beside the other.
    """
    if any(isinstance(value, str) for value in values):
        texts = [value if isinstance(value, str) else f"{value:g}" for value in values]
        return {value: float(place) for place, value in enumerate(values)}, texts, False
    log = min(values) > 0 and max(values) / min(values) > LOGARITHMIC
    return {value: float(value) for value in values}, [f"{value:g}" for value in values], log


def draw_profile(
    frame: pd.DataFrame, ax: Axes | None, label: str, joined: bool = False, order: Sequence[Any] = ()
) -> Figure:
    """Series with intervals over ``x``: a line of facets per measure, a column per target.

    The marks of the series stand beside each other; ``joined`` draws lines through those of a numeric axis. ``order``
    are the values of ``x``, by default as they come in the frame.
    """
    series, targets, measures = (list(dict.fromkeys(frame[name])) for name in ("title", "target_title", "measure"))
    if ax is not None and len(targets) * len(measures) > 1:
        raise ValueError("ax takes one target and one measure, and the frame holds more: filter it")
    places, texts, log = axis_of(order or list(dict.fromkeys(frame["x"])))
    at = np.array(list(places.values()))
    spread = at.max() / at.min() if log else max(float(np.ptp(at)), 1.0)
    shift = {name: index - (len(series) - 1) / 2 for index, name in enumerate(series)}
    step = 0.02 if joined else 0.16 / spread
    moved = [
        places[x] * spread ** (step * shift[name]) if log else places[x] + step * spread * shift[name]
        for x, name in zip(frame["x"], frame["title"], strict=True)
    ]
    frame = frame.assign(place=moved)
    figure = new_figure(0.75 + 1.15 * len(measures)) if ax is None else figure_of(ax)
    plot = so.Plot(frame, x="place", y="value", color="title", edgecolor="title", marker="title")
    if ax is None:
        plot = plot.facet("target_title", "measure", order={"col": targets, "row": measures}).share(y="row")
    if joined and isinstance(frame["x"].iloc[0], int | float):
        levels = frame[frame["measure"] == measures[0]]
        plot = plot.add(so.Line(linewidth=1), data=levels, legend=False)
    plot = plot.add(so.Range(linewidth=0.9), ymin="low", ymax="high", legend=False)
    plot = plot.add(so.Dot(pointsize=4.2), data=frame[frame["shown"].astype(bool)])
    hollow = frame[~frame["shown"].astype(bool)]
    plot = plot.add(so.Dot(pointsize=4.2, color="white", edgewidth=1), data=hollow, legend=False)
    colours = _cycle(PALETTE, frame["title"])
    plot = plot.scale(color=colours, edgecolor=colours, marker=_cycle(MARKERS, frame["title"]))
    plot = plot.scale(x="log") if log else plot
    draw_plot(plot.label(x="", y=""), ax or figure)
    with styled():
        grid = np.array(figure.axes if ax is None else [ax], dtype=object).reshape(len(measures), len(targets))
        ends = at[[0, -1]] * spread ** np.array([-0.1, 0.1]) if log else at[[0, -1]] + spread * np.array([-0.1, 0.1])
        for depth, (line, measure) in enumerate(zip(grid, measures, strict=True)):
            for axes, target in zip(line, targets, strict=True):
                title = "" if depth else wrap(target, max(12, 90 // len(targets)))
                axes.set_title(title, linespacing=SPACING)
                axes.minorticks_off()
                _slant(axes, at, texts, max(map(len, texts)) > 6)
                axes.set_xlim(*(ends if joined else (at.min() - 0.5, at.max() + 0.5)))
                if "difference" in measure:
                    axes.axhline(0, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
            line[0].set_ylabel(measure)
        label_x(ax or figure, label)
    return literal(figure, ax)


def draw_heat_maps(
    frame: pd.DataFrame, heads: Sequence[str], label: str, ax: Axes | None, value: str, groups: Sequence[str] = ()
) -> Figure:
    """Two heat maps of rows × ``heads``, the levels and their differences; one of them, ``value``, into ``ax``.

    ``groups``: what stands over the columns of each group.
    """
    blocks = {"value": label, "difference": "difference to the reference (points)"}
    if value not in blocks:
        raise ValueError(f"value must be one of {', '.join(blocks)}, not {value!r}")
    frame = frame.assign(head=heads, group=list(groups) or "")
    rows = frame.drop_duplicates("row")
    columns = frame.drop_duplicates(["group", "head"])
    labels, tall, size = fitting(rows["title"], 0.185, 36, blocks=2)
    figure = new_figure(2 * tall + (1.6 if groups else 1.2)) if ax is None else figure_of(ax)
    with styled():
        axes = list(figure.subplots(2, 1, sharex=True)) if ax is None else [ax]
        for each, (name, title) in zip(axes, blocks.items() if ax is None else [(value, blocks[value])], strict=True):
            wide = frame.pivot(index="row", columns=["group", "head"], values=name)
            wide = wide.loc[rows["row"].tolist(), list(zip(columns["group"], columns["head"], strict=True))]
            _heat_map(each, wide, diverging=name == "difference", size=size)
            each.set_yticks(np.arange(len(rows)) + 0.5, labels, linespacing=SPACING, fontsize=size)
            each.set_title(title, loc="left", pad=14 if groups else 4)
            _group(each, columns["group"].tolist())
        heads = columns["head"].tolist()
        _slant(axes[-1], np.arange(len(heads)) + 0.5, heads, max(map(len, heads)) > 4)
    return literal(figure, ax)


def _heat_map(axes: Axes, wide: pd.DataFrame, diverging: bool, size: float) -> None:
    """Numbers on colour. The numbers carry the meaning; the colour only guides, and differs in lightness."""
    values = wide.to_numpy(dtype=np.float64)
    finite = values[np.isfinite(values)]
    reach = max(float(np.quantile(np.abs(finite), 0.85)), 1e-9) if len(finite) else 1.0
    texts = np.vectorize(lambda value: number(float(value), 1, sign=diverging), otypes=[object])(values)
    scale = {"cmap": "PuOr", "vmin": -1.8 * reach, "vmax": 1.8 * reach} if diverging else {
        "cmap": "Blues", "vmin": 0.0, "vmax": 1.8 * float(finite.max(initial=1.0)),
    }  # fmt: skip
    size = min(6.5, size, 380 / max(len(wide.columns), 1) / 2.3)
    shades = np.clip(values, -reach, reach) if diverging else values
    sns.heatmap(
        shades, annot=texts, fmt="", cbar=False, linewidths=0.6, ax=axes, annot_kws={"size": size, "color": INK},
        yticklabels=False, xticklabels=False, **scale,
    )  # fmt: skip
    for row, column in np.argwhere(~np.isfinite(values)):  # seaborn leaves these cells empty
        axes.text(column + 0.5, row + 0.5, DASH, ha="center", va="center", fontsize=size, color=GREY)
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0)


def _group(axes: Axes, groups: Sequence[str]) -> None:
    """Rules between the groups of columns, and their names above."""
    edges = [0, *(place for place, (a, b) in enumerate(pairwise(groups), 1) if a != b), len(groups)]
    for start, end in pairwise(edges):
        if start:
            axes.axvline(start, color=INK, linewidth=0.8)
        axes.text((start + end) / 2, -0.1, short(groups[start], 40), ha="center", va="bottom", style="italic",
                  fontsize=STYLE["ytick.labelsize"])  # fmt: skip
