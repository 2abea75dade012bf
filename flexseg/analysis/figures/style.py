"""How every figure looks: seaborn's paper context, colours that colour-blind readers tell apart, and marks for grey."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

DOUBLE = 7.0
"""Inches: both columns of two-column proceedings, and the text of the reports."""
INK, GREY, RULE = "#000000", "#555555", "#c8c8c8"
PALETTE: list[Any] = sns.color_palette("colorblind", as_cmap=True)
MARKERS = ["o", "s", "D", "^", "v", "P", "X", "<", ">", "h"]
LINES = ["-", "--", "-.", ":"]

STYLE: dict[str, Any] = {
    "text.parse_math": False,  # a title may hold dollars
    **sns.axes_style("ticks"),
    **sns.plotting_context("paper", font_scale=0.82),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "mathtext.fontset": "stix",
    "pdf.fonttype": 42,
    "pdf.compression": 6,
    "image.composite_image": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "flexseg",
}
"""Type 42 fonts stay editable text; STIX comes with matplotlib, so every machine draws the same. In SVG, which cannot
carry fonts, letters are outlines; the salt makes its ids the same every time."""


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save in :data:`STYLE`."""
    with mpl.rc_context(cast(Any, STYLE)):
        yield


def new_figure(height: float) -> Figure:
    """A figure across both columns, ``height`` inches high, whose axes share the room without touching each other."""
    figure = Figure(figsize=(DOUBLE, height), layout="constrained")
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.03)  # type: ignore[call-arg]
    return figure


def fix_layout(figure: Figure) -> None:
    """Lay the axes out once and for all, so that every format shows the same.

    The solver's last bits differ from run to run, and would show in the ids of an SVG.
    """
    engine = figure.get_layout_engine()
    if engine is None:
        return
    engine.execute(figure)
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(Bbox(np.round(axes.get_position().get_points(), 6)))


def short(text: str, most: int = 80) -> str:
    """``text``, which may be as long as a benchmark file allows, as far as a figure has room for it."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def literal(figure: Figure, axes: Axes | None = None) -> Figure:
    """``figure``, whose texts (or those in ``axes``, which somebody else made) are no formulas, dollars or not."""
    for text in (axes or figure).findobj(Text):
        cast(Text, text).set_parse_math(False)
    return figure


def figure_of(axes: Axes) -> Figure:
    """The figure that holds ``axes``, also where they stand in a part of it."""
    return cast(Figure, axes.get_figure(root=True))
