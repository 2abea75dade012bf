"""The page: A4 landscape with heading, body, caption and foot line. Positions are points from the top left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flexseg.analysis.formats import Cell, Table
from flexseg.analysis.style import GREY, INK, RC, RULE, balanced, text_width, wrap
from flexseg.files import replacing

WIDTH, HEIGHT = 841.89, 595.28
LEFT, RIGHT, TOP, BOTTOM = 45.0, WIDTH - 45.0, 40.0, HEIGHT - 40.0
CAPTION, SMALL = 8.5, 7.5
SPACE = 0.28
"""The gap between a number and its interval, in type sizes."""


class Page:
    """One page; ``y`` is where the next thing goes, ``floor`` where the body ends."""

    def __init__(self, heading: str, foot: str, number: int) -> None:
        self.figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        self.y, self.floor = TOP, BOTTOM - 6
        self.line(LEFT, RIGHT, BOTTOM + 2, 0.4, RULE)
        self.text(LEFT, BOTTOM + 12, foot, 7.5, colour=GREY)
        self.text(RIGHT, BOTTOM + 12, str(number), 7.5, align="right", colour=GREY)
        if heading:
            self.text(LEFT, self.y + 10, heading, 14, bold=True)
            self.line(LEFT, RIGHT, self.y + 17, 0.8, INK)
            self.y += 28

    def text(
        self, x: float, y: float, text: str, size: float, *, bold: bool = False, italic: bool = False,
        align: str = "left", colour: str = INK,
    ) -> None:  # fmt: skip
        """One line of text on the base line ``y``."""
        self.figure.text(
            x / WIDTH, 1 - y / HEIGHT, text, size=size, ha=align, va="baseline", color=colour, parse_math=False,
            weight="bold" if bold else "normal", style="italic" if italic else "normal",
        )  # fmt: skip

    def line(self, x0: float, x1: float, y: float, width: float, colour: str = INK) -> None:
        """A horizontal rule."""
        positions = [x0 / WIDTH, x1 / WIDTH], [1 - y / HEIGHT] * 2
        self.figure.add_artist(Line2D(*positions, color=colour, linewidth=width, solid_capstyle="butt"))

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

    def caption(self, text: str, most: float = HEIGHT) -> None:
        """The caption under the body, which ends above it and is at most ``most`` points high."""
        lines = wrap(text, RIGHT - LEFT, CAPTION)
        self.floor = min(BOTTOM - 4 - len(lines) * CAPTION * 1.25, self.y + most)
        self.paragraph(text, CAPTION, y=self.floor)
        self.floor -= 8

    def body(self, top: float = 0.0, bottom: float = 0.0) -> tuple[float, float, float, float]:
        """The rectangle that is left, in figure fractions (left, bottom, width, height), less margins in points."""
        height = self.floor - bottom - self.y - top
        return LEFT / WIDTH, 1 - (self.floor - bottom) / HEIGHT, (RIGHT - LEFT) / WIDTH, height / HEIGHT

    def axis_label(self, text: str) -> None:
        """A label for the x axes of all facets, at the foot of the body, which ends above it."""
        self.text((LEFT + RIGHT) / 2, self.floor - 2, text, 9, align="center")
        self.floor -= 13

    def legend(self, entries: Mapping[str, Artist]) -> None:
        """One legend for all axes, at the head of the body, which begins below it."""
        if not entries:
            return
        anchor = (0.5, 1 - self.y / HEIGHT)
        columns = min(len(entries), 4)
        self.figure.legend(
            list(entries.values()), list(entries), loc="upper center", bbox_to_anchor=anchor, ncols=columns,
            borderaxespad=0.0,
        ).set_in_layout(False)  # fmt: skip
        self.y += 8 + 12 * -(-len(entries) // columns)

    def lay_out(self, top: float = 0.0, bottom: float = 0.0) -> None:
        """Let the axes fill the body without touching each other's labels."""
        self.figure.set_layout_engine(
            "constrained", rect=self.body(top, bottom), w_pad=3 / 72, h_pad=3 / 72, wspace=0.01, hspace=0.03
        )


class Book:
    """The PDF that is being written: pages with running numbers."""

    def __init__(self, pdf: PdfPages, foot: str) -> None:
        self.pdf, self.foot, self.number = pdf, foot, 0

    @contextmanager
    def page(self, heading: str = "") -> Iterator[Page]:
        """A new page, written when the block ends."""
        self.number += 1
        page = Page(heading, self.foot, self.number)
        yield page
        self.pdf.savefig(page.figure)

    def table(self, table: Table, heading: str = "") -> None:
        """A table with its notes and caption under it; a long table goes on on the next page."""
        rest = table_lines(table)
        below = [(f"{mark} {note}", SMALL) for mark, note in table.notes] + [(table.caption, CAPTION)]
        while rest:
            with self.page(heading or table.title) as page:
                page.floor -= sum(len(wrap(text, RIGHT - LEFT, size)) * size * 1.25 + 2 for text, size in below) + 8
                rest = draw_table(page, table, rest)
                page.y += 4
                for text, size in below:
                    page.paragraph(text, size, gap=2)


@contextmanager
def open_book(path: Path, title: str, subject: str, foot: str) -> Iterator[Book]:
    """A :class:`Book` at ``path``; nothing in the file depends on when or where it was written."""
    metadata = {
        "Title": title,
        "Subject": subject,
        "Creator": "flexseg",
        "Producer": "matplotlib",
        "CreationDate": None,
    }
    with mpl.rc_context(cast(Any, RC)), replacing(path) as temporary, PdfPages(temporary, metadata=metadata) as pdf:
        yield Book(pdf, foot)


def table_lines(table: Table) -> list[tuple[Cell, ...] | str]:
    """The lines of a table: section headings (str) and cells."""
    lines: list[tuple[Cell, ...] | str] = []
    for section, rows in table.sections():
        lines += [section] if section else []
        lines += [row.cells for row in rows]
    return lines


def _split(text: str) -> tuple[str, str]:
    for separator in (" ±", " ["):
        if separator in text:
            place = text.index(separator)
            return text[:place], text[place + 1 :]
    return text, ""


def _heads(table: Table, size: float, widths: list[float]) -> list[list[str]]:
    return [
        wrap(column.title, max(width, 8), size, bold=True) for column, width in zip(table.columns, widths, strict=True)
    ]


def _widths(table: Table, size: float) -> tuple[list[float], list[float]]:
    """Natural width of each column, and of the part of its numbers that stands after ± or before [ ."""
    totals, tails = [], []
    lines = [line for line in table_lines(table) if not isinstance(line, str)]
    for index, column in enumerate(table.columns):
        parts = [(_split(line[index].text), line[index].bold) for line in lines]
        numeric = column.align == "r"
        heads = [text_width(head, size, bold) for (head, tail), bold in parts if tail and numeric]
        tail_widths = [text_width(tail, size, bold) + size * SPACE for (_, tail), bold in parts if tail and numeric]
        whole = [
            text_width(f"{head} {tail}".strip(), size, bold) for (head, tail), bold in parts if not (tail and numeric)
        ]
        word = max((text_width(word, size, True) for word in column.title.split()), default=0)
        tail_width = max(tail_widths, default=0)
        totals.append(max([max(heads, default=0) + tail_width, word, *whole]))
        tails.append(tail_width)
    return totals, tails


def draw_table(
    page: Page, table: Table, lines: list[tuple[Cell, ...] | str], largest: float = 9.0
) -> list[tuple[Cell, ...] | str]:
    """Draw a booktabs table from ``page.y`` down to ``page.floor``; the lines that found no room.

    The type is as large as the width allows, at most ``largest`` points.
    """
    size, gap = largest, 9.0
    widths, tails = _widths(table, size)
    while sum(widths) + gap * (len(widths) - 1) > RIGHT - LEFT and size > 5.0:
        size -= 0.25
        gap = max(4.0, size)
        widths, tails = _widths(table, size)
    spare = RIGHT - LEFT - sum(widths)
    gap = min(22.0, spare / max(len(widths) - 1, 1))
    starts = [LEFT + sum(widths[:index]) + gap * index for index in range(len(widths))]
    end, leading = starts[-1] + widths[-1], size * 1.62
    page.line(LEFT, end, page.y, 1.0)
    page.y += _group_heads(page, table, starts, widths, gap, size)
    heads = _heads(table, size, widths)
    deepest = max(len(head) for head in heads)
    for column, start, width, head in zip(table.columns, starts, widths, heads, strict=True):
        for place, word in enumerate(head):
            base = page.y + (deepest - len(head) + place + 1) * size * 1.15 + size * 0.2
            _put(page, column.align, start, width, base, word, size, True)
    page.y += deepest * size * 1.15 + size * 0.7
    page.line(LEFT, end, page.y, 0.6)
    page.y += size * 0.15
    done = 0
    for line in lines:
        need = leading * (1.2 if isinstance(line, str) else 1.0)
        if page.y + need + 3 > page.floor and done:
            break
        page.y += need
        base = page.y - size * 0.42
        if isinstance(line, str):
            page.text(LEFT, base, line, size, italic=True)
        else:
            for column, start, width, tail, cell in zip(table.columns, starts, widths, tails, line, strict=True):
                _cell(page, column.align, start, width, tail, base, cell, size)
        done += 1
    page.line(LEFT, end, page.y + size * 0.3, 1.0)
    page.y += size
    return lines[done:]


def _group_heads(
    page: Page, table: Table, starts: list[float], widths: list[float], gap: float, size: float
) -> float:  # fmt: skip
    """Headings over groups of columns, each with a rule as wide as its columns; the height that they take."""
    spans, index = [], 0
    for title, count in table.groups():
        first, last = starts[index], starts[index + count - 1] + widths[index + count - 1]
        if title:
            spans.append((first, last, balanced(title, last - first + gap * 0.5, size)))
        index += count
    deepest = max((len(lines) for _, _, lines in spans), default=0)
    for first, last, lines in spans:
        for place, line in enumerate(lines):
            base = page.y + (deepest - len(lines) + place + 1) * size * 1.2
            centre = min((first + last) / 2, RIGHT - text_width(line, size, italic=True) / 2)
            page.text(centre, base, line, size, align="center", italic=True)
        page.line(first, last, page.y + deepest * size * 1.2 + size * 0.45, 0.4)
    return deepest * size * 1.2 + size * 0.4 if spans else 0.0


def _cell(page: Page, align: str, start: float, width: float, tail: float, y: float, cell: Cell, size: float) -> None:
    left, right = _split(cell.text)
    if align == "r" and right:
        page.text(start + width - tail, y, left, size, bold=cell.bold, align="right")
        page.text(start + width, y, right, size, bold=cell.bold, align="right")
    elif align == "r" and tail and text_width(cell.text, size, cell.bold) <= width - tail:
        page.text(start + width - tail, y, cell.text, size, bold=cell.bold, align="right")
    else:
        _put(page, align, start, width, y, cell.text, size, cell.bold)


def _put(page: Page, align: str, start: float, width: float, y: float, text: str, size: float, bold: bool) -> None:
    x = {"l": start, "r": start + width, "c": start + width / 2}[align]
    if text:
        page.text(x, y, text, size, bold=bold, align={"l": "left", "r": "right", "c": "center"}[align])
