"""Where figures and tables are drawn: a page of a report, or a sheet that holds one figure alone.

A figure is drawn by one function onto a :class:`Canvas` and so looks the same on both. Positions are points from the
top left; sizes are those of the page, and a canvas of another type scale multiplies them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from flexseg.analysis.figures.style import GREY, INK, RULE, text_width, wrap

WIDTH, HEIGHT = 841.89, 595.28
LEFT, RIGHT, TOP, BOTTOM = 45.0, WIDTH - 45.0, 40.0, HEIGHT - 40.0
CAPTION, SMALL = 8.5, 7.5
SINGLE, DOUBLE = 3.3 * 72, 7.0 * 72
"""Column widths of two-column proceedings, in points."""
SHEET_TYPE, SHEET_DENSITY = 0.85, 0.62
"""Type and heights of a sheet, as fractions of those of a page."""


class Canvas:
    """What a figure is drawn on; ``y`` is where the next thing goes, ``floor`` where the body ends.

    Attributes:
        scale: of the type; every size that a figure names is multiplied by it.
        legend_text: the caption as the figure gave it.
        empty: why there is nothing to show; empty if there is.
        lowest: how far down pictures reach, in points.
    """

    def __init__(self, width: float, height: float, margin: tuple[float, float, float], scale: float) -> None:
        self.width, self.height, self.scale = width, height, scale
        self.left, self.right, self.y = margin[0], width - margin[0], margin[1]
        self.floor = height - margin[2]
        self.figure = Figure(figsize=(width / 72, height / 72))
        self.legend_text = self.empty = ""
        self.lowest = 0.0

    def nothing(self, reason: str) -> None:
        """Say that the figure cannot be drawn, and why, in one line."""
        self.empty = reason

    def size(self, points: float) -> float:
        """``points`` of the page's type or spacing on this canvas."""
        return points * self.scale

    def wrap(self, text: str, width: float, size: float) -> list[str]:
        """``text`` in lines at most ``width`` points wide, set in ``size`` points of the page."""
        return wrap(text, width, self.size(size))

    def text(
        self, x: float, y: float, text: str, size: float, *, bold: bool = False, italic: bool = False,
        align: str = "left", colour: str = INK,
    ) -> None:  # fmt: skip
        """One line of text on the base line ``y``."""
        self.figure.text(
            x / self.width, 1 - y / self.height, text, size=self.size(size), ha=align, va="baseline", color=colour,
            parse_math=False, weight="bold" if bold else "normal", style="italic" if italic else "normal",
        )  # fmt: skip

    def line(self, x0: float, x1: float, y: float, width: float, colour: str = INK) -> None:
        """A horizontal rule."""
        positions = [x0 / self.width, x1 / self.width], [1 - y / self.height] * 2
        self.figure.add_artist(Line2D(*positions, color=colour, linewidth=width, solid_capstyle="butt"))

    def caption(self, text: str, most: float = HEIGHT, exact: bool = False) -> None:
        """The caption, given before anything is drawn; ``most`` points of the page are enough for the body.

        ``exact``: they were reckoned from this canvas's own width, and are to be kept on a sheet too.
        """
        raise NotImplementedError

    def body(self, top: float = 0.0, bottom: float = 0.0) -> tuple[float, float, float, float]:
        """The rectangle that is left, in figure fractions (left, bottom, width, height), less margins in points."""
        height = self.floor - bottom - self.y - top
        wide = (self.right - self.left) / self.width
        return self.left / self.width, 1 - (self.floor - bottom) / self.height, wide, height / self.height

    def axis_label(self, text: str) -> None:
        """A label for the x axes of all facets, at the foot of the body, which ends above it."""
        self.text((self.left + self.right) / 2, self.floor - 2, text, 9, align="center")
        self.floor -= self.size(13)

    def legend(self, entries: Mapping[str, Any], columns: int = 4) -> None:
        """One legend for all axes, label → handle, at the head of the body, which begins below it."""
        if not entries:
            return
        widest = max(text_width(label, self.size(8)) for label in entries) + self.size(38)
        columns = max(1, min(len(entries), columns, int((self.right - self.left) / widest)))
        anchor = (0.5, 1 - self.y / self.height)
        self.figure.legend(
            list(entries.values()), list(entries), loc="upper center", bbox_to_anchor=anchor, ncols=columns,
            borderaxespad=0.0, columnspacing=1.4,
        ).set_in_layout(False)  # fmt: skip
        self.y += self.size(8 + 12 * -(-len(entries) // columns))

    def lay_out(self, top: float = 0.0, bottom: float = 0.0) -> None:
        """Let the axes fill the body without touching each other's labels, and fix them there."""
        figure = self.figure
        figure.set_layout_engine(
            "constrained", rect=self.body(top, bottom), w_pad=3 / 72, h_pad=3 / 72, wspace=0.01, hspace=0.03
        )
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.execute(figure)
        figure.set_layout_engine("none")  # else every format draws everything once more to lay it out again
        for axis in figure.axes:
            # The solver's last bits differ from run to run, and would show in the ids of an SVG.
            axis.set_position(Bbox(np.round(axis.get_position().get_points(), 6)))
            axis.set_in_layout(True)
        for legend in figure.legends:
            legend.set_in_layout(True)  # it had its own place in the layout, but is content when a sheet is cut

    def picture_axes(self) -> Axes:
        """Axes over the whole canvas in points from the bottom left: many pictures in one are written at once."""
        axis = self.figure.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        axis.set_in_layout(False)
        return axis

    def put(self, axis: Axes, x: float, y: float, width: float, height: float, picture: NDArray[Any]) -> None:
        """A picture whose top left corner is (x, y), on :meth:`picture_axes`."""
        box = (x, x + width, self.height - y - height, self.height - y)
        axis.imshow(picture, extent=box, interpolation="none")
        axis.set(xlim=(0, self.width), ylim=(0, self.height), aspect="auto")
        self.lowest = max(self.lowest, y + height)


class Page(Canvas):
    """A page of a report: A4 landscape with heading, body, caption and foot line. ``label``: before the caption."""

    def __init__(self, heading: str, foot: str, number: int, label: str = "") -> None:
        super().__init__(WIDTH, HEIGHT, (LEFT, TOP, HEIGHT - BOTTOM + 6), 1.0)
        self.label = label
        self.line(LEFT, RIGHT, BOTTOM + 2, 0.4, RULE)
        self.text(LEFT, BOTTOM + 12, foot, 7.5, colour=GREY)
        self.text(RIGHT, BOTTOM + 12, str(number), 7.5, align="right", colour=GREY)
        if heading:
            self.text(LEFT, self.y + 10, heading, 14, bold=True)
            self.line(LEFT, RIGHT, self.y + 17, 0.8, INK)
            self.y += 28

    def paragraph(
        self, text: str, size: float, *, x: float = LEFT, width: float = RIGHT - LEFT, bold: bool = False,
        colour: str = INK, y: float | None = None, gap: float = 4.0,
    ) -> float:  # fmt: skip
        """Wrapped text from ``y`` (default: here) down; moves ``self.y`` below it when it was put here."""
        here = self.y if y is None else y
        for line in wrap(text, width, size, bold):
            here += size * 1.25
            self.text(x, here - size * 0.25, line, size, bold=bold, colour=colour)
        if y is None:
            self.y = here + gap
        return here + gap

    def caption(self, text: str, most: float = HEIGHT, exact: bool = False) -> None:
        """The caption under the body, which ends above it and is at most ``most`` points high."""
        self.legend_text = text
        text = f"{self.label} {text}".strip()
        lines = wrap(text, RIGHT - LEFT, CAPTION)
        self.floor = min(BOTTOM - 4 - len(lines) * CAPTION * 1.25, self.y + most)
        self.paragraph(text, CAPTION, y=self.floor)
        self.floor -= 8


class Sheet(Canvas):
    """One figure alone, as wide as a column of a paper: no heading, no foot, and its caption kept for another file."""

    def __init__(self, width: float, ratio: float) -> None:
        super().__init__(width, width * ratio, (1.0, 1.0, 1.0), SHEET_TYPE)

    def caption(self, text: str, most: float = HEIGHT, exact: bool = False) -> None:
        """Keep the caption, and make the sheet as low as ``most`` allows."""
        self.legend_text = text
        self.height = most if exact else min(self.height, most * SHEET_DENSITY)
        self.floor = self.height - 1
        self.figure.set_size_inches(self.width / 72, self.height / 72)


@dataclass(frozen=True)
class Plate:
    """A figure of the reports: its file name, heading, drawing function, and how it stands in a paper.

    ``width`` in points is :data:`SINGLE` or :data:`DOUBLE`; ``ratio`` is the most height for that width.
    """

    name: str
    heading: str
    draw: Callable[[Canvas], None]
    width: float = DOUBLE
    ratio: float = 0.62
