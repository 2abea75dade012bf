"""The report as a book: pages with running numbers, figures on pages, and tables set as booktabs would."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
from matplotlib.backends.backend_pdf import PdfPages

from flexseg.analysis.figures.canvas import BOTTOM, CAPTION, HEIGHT, LEFT, RIGHT, SMALL, Page, Plate
from flexseg.analysis.figures.style import balanced, style_at, text_width, wrap
from flexseg.analysis.stats.formats import Cell, Column, Row, Table
from flexseg.files import replacing

SPACE = 0.28
"""The gap between a number and its interval, in type sizes."""


class Book:
    """The PDF that is being written: pages, figures and tables with running numbers.

    ``missing`` holds (heading, reason) of the figures that had nothing to show: they get a line instead of a page.
    """

    def __init__(self, pdf: PdfPages, foot: str) -> None:
        self.pdf, self.foot, self.number = pdf, foot, 0
        self.figures = self.tables_made = 0
        self.missing: list[tuple[str, str]] = []

    @contextmanager
    def page(self, heading: str = "") -> Iterator[Page]:
        """A new page, written when the block ends."""
        self.number += 1
        page = Page(heading, self.foot, self.number)
        yield page
        self.pdf.savefig(page.figure)

    def figure(self, plate: Plate) -> None:
        """A page with one numbered figure, or a line in ``missing``."""
        page = Page(plate.heading, self.foot, self.number + 1, f"Figure {self.figures + 1}.")
        plate.draw(page)
        if page.empty:
            self.missing.append((plate.heading, page.empty))
            return
        self.number += 1
        self.figures += 1
        self.pdf.savefig(page.figure)

    def tables(self, tables: Sequence[Table]) -> None:
        """Numbered tables, each with its notes and caption under it, as many on a page as fit whole.

        A table that is longer than a page goes on on the next one.
        """
        waiting = list(tables)
        while waiting:
            rest, heading = table_lines(waiting[0]), waiting[0].title
            if not rest:  # a table without a line would be a page without content
                waiting.pop(0)
                self.missing.append((heading, "There is nothing to tabulate."))
                continue
            label, caption = self._label(), waiting[0].caption
            while rest:
                with self.page(heading) as page:
                    rest = _placed(page, waiting[0], rest, f"{label} {caption}")
                    if rest:
                        heading, caption = f"{waiting[0].title}, continued", "Continued."
                        continue
                    waiting.pop(0)
                    while waiting and table_height(waiting[0]) + 34 < BOTTOM - 6 - page.y:
                        table = waiting.pop(0)
                        page.y += 20
                        page.paragraph(table.title, 12, bold=True, gap=6)
                        _placed(page, table, table_lines(table), f"{self._label()} {table.caption}")

    def _label(self) -> str:
        self.tables_made += 1
        return f"Table {self.tables_made}."

    def missing_table(self) -> list[Table]:
        """The figures that are not shown so far, and why, as a table; none if there are none."""
        rows = [Row((Cell(heading), Cell(reason))) for heading, reason in self.missing]
        columns = [Column("Figure", "l"), Column("Why", "l")]
        caption = "Figures that this report would have if there were something to show."
        return [Table("missing", "Not shown, and why", caption, columns, rows)] if rows else []


def _placed(
    page: Page, table: Table, lines: list[tuple[Cell, ...] | str], caption: str
) -> list[tuple[Cell, ...] | str]:  # fmt: skip
    """Draw ``lines`` with notes and caption from ``page.y`` down; the lines that found no room."""
    floor = page.floor
    below = [(f"{mark} {note}", SMALL) for mark, note in table.notes] + [(caption, CAPTION)]
    page.floor -= sum(len(wrap(text, RIGHT - LEFT, size)) * size * 1.25 + 2 for text, size in below) + 8
    rest = draw_table(page, table, lines)
    page.y += 4
    for text, size in below:
        page.paragraph(text, size, gap=2)
    page.floor = floor
    return rest


def table_height(table: Table) -> float:
    """The points that a table takes with its notes and caption: measured by drawing it on a page of its own."""
    page = Page("", "", 0)
    start = page.y
    rest = _placed(page, table, table_lines(table), f"Table 00. {table.caption}")
    return page.y - start if not rest else HEIGHT


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
    rc = cast(Any, style_at(1.0))
    with mpl.rc_context(rc), replacing(path) as temporary, PdfPages(temporary, metadata=metadata) as pdf:
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


def _pieces(title: str) -> list[str]:
    """What a heading may be broken into: words, and parts that end in a hyphen; an arrow stays with its word."""
    return re.sub(r" (?![↑↓])", " \n", title).replace("-", "-\n").split("\n")


def _heads(table: Table, size: float, widths: list[float]) -> list[list[str]]:
    heads = []
    for column, width in zip(table.columns, widths, strict=True):
        lines = [""]
        for piece in _pieces(column.title):
            if lines[-1] and text_width((lines[-1] + piece).rstrip(), size, True) > max(width, 8) + 0.01:
                lines.append("")
            lines[-1] += piece
        heads.append([line.rstrip() for line in lines])
    return heads


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
        word = max(text_width(piece.rstrip(), size, True) for piece in _pieces(column.title))
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
    for place, line in enumerate(lines):
        need = leading * (1.2 if isinstance(line, str) else 1.0)
        if page.y + need + 3 > page.floor and done:
            break
        if isinstance(line, str) and done and page.y + leading * _section(lines, place) + 3 > page.floor:
            break  # a section that does not fit whole begins on the next page
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


def _section(lines: list[tuple[Cell, ...] | str], start: int) -> float:
    """How many lines high the section is whose heading stands at ``start``."""
    rows = takewhile(lambda line: not isinstance(line, str), lines[start + 1 :])
    return 1.2 + sum(1 for _ in rows)


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
