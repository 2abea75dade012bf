"""A table as data, and how it is written: as Markdown, as LaTeX (booktabs) and, for machines, as CSV."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal

from flexseg.analysis.stats.statistics import Difference, Mean
from flexseg.files import replacing

MINUS = "\N{MINUS SIGN}"
DASH = "–"
SUPERSCRIPTS = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹\N{THIN SPACE}")


@dataclass(frozen=True)
class Cell:
    """The text of a cell; bold only where a difference was shown."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Column:
    """A column: heading, alignment, and the heading that it shares with its neighbours."""

    title: str
    align: Literal["l", "r", "c"] = "r"
    group: str = ""


@dataclass(frozen=True)
class Row:
    """A line of cells, under the heading ``section``."""

    cells: tuple[Cell, ...]
    section: str = ""


@dataclass
class Table:
    """A table for people: title, columns, lines, the caption that says what was done, and notes by their mark.

    A ``wide`` table spans both columns of a LaTeX page and is scaled to their width.
    """

    name: str
    title: str
    caption: str
    columns: list[Column]
    rows: list[Row]
    notes: list[tuple[str, str]] = field(default_factory=list)
    wide: bool = False

    def sections(self) -> list[tuple[str, list[Row]]]:
        """The lines under their section headings, in order."""
        return [(title, list(rows)) for title, rows in groupby(self.rows, lambda row: row.section)]

    def groups(self) -> list[tuple[str, int]]:
        """Neighbouring columns with the same group heading: (heading, number of columns)."""
        return [(title, len(list(columns))) for title, columns in groupby(self.columns, lambda column: column.group)]


def make_row(*cells: str | Cell, section: str = "") -> Row:
    """A line of a table; a text becomes a plain cell."""
    return Row(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells), section)


def number(value: float, digits: int = 1, sign: bool = False) -> str:
    """``value`` with fixed decimals, a true minus sign, never ``−0.0``; a dash for NaN."""
    if not math.isfinite(value):
        return DASH
    text = f"{abs(value):.{digits}f}"
    zero = float(text) == 0
    return ("" if zero and not sign else MINUS if value < 0 and not zero else "+" if sign and not zero else "") + text


def mean_text(mean: Mean, digits: int = 1) -> str:
    """``34.2 ± 0.5``; ``34.2 ± –`` for one seed; a dash for none."""
    if not mean.n:
        return DASH
    return f"{number(mean.value, digits)} ± {number(mean.half, digits)}"


def difference_text(difference: Difference, digits: int = 1) -> str:
    """``+1.2 [0.3, 2.1]``; ``+1.2 [–]`` for one seed; a dash for none."""
    if not difference.n:
        return DASH
    return f"{number(difference.value, digits, sign=True)} {bracket_text(difference, digits)}"


def bracket_text(difference: Difference, digits: int = 1) -> str:
    """The interval alone: ``[0.3, 2.1]``, or ``[–]`` for one seed.

    An end that excludes zero, but would be rounded to it, gets one more decimal: ``[0.04, 1.2]``.
    """
    if not math.isfinite(difference.low):
        return "[–]"
    excludes = difference.low > 0 or difference.high < 0
    ends = (difference.low, difference.high)
    texts = [number(end, digits + (excludes and round(abs(end), digits) == 0)) for end in ends]
    return f"[{texts[0]}, {texts[1]}]"


def difference_cell(difference: Difference) -> Cell:
    """:func:`difference_text`, bold if the interval excludes zero (after Holm if it was applied)."""
    return Cell(difference_text(difference), bold=difference.shown)


def to_markdown(table: Table) -> str:
    """GitHub-flavoured Markdown: title, table, caption, notes."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    titles = [escape_markdown(f"{c.group}: {c.title}" if c.group else c.title) for c in table.columns]
    marks = {"l": ":--", "r": "--:", "c": ":-:"}
    lines = [
        f"## {escape_markdown(table.title)}",
        "",
        line(titles),
        line(marks[column.align] for column in table.columns),
    ]
    for section, rows in table.sections():
        if section:
            lines.append(line([f"**{escape_markdown(section)}**", *[""] * (len(titles) - 1)]))
        for row in rows:
            texts = [(escape_markdown(cell.text), cell.bold) for cell in row.cells]
            lines.append(line(f"**{text}**" if bold else text for text, bold in texts))
    lines += ["", escape_markdown(table.caption)]
    for mark, note in table.notes:
        lines += ["", f"{mark} {escape_markdown(note)}"]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return re.sub(r"\s*[\n\r\t\u2028\u2029]\s*", " ", text)


def escape_markdown(text: str) -> str:
    """``text`` on one line as Markdown that shows exactly it: no tag, link, formula, emphasis, heading or new cell."""
    text = _MARKS.sub(r"\\\g<0>", _one_line(text))
    text = re.sub(r"^(\d+)(?=[.)](\s|$))", r"\1\\", text)  # a numbered list
    return _TAGS.sub("&lt;", _ENTITIES.sub("&amp;", text))


_MARKS = re.compile(
    r"""[\\`*~$|]  # code, emphasis, formulas, cells
    |(?<![^\W_])_|_(?![^\W_])  # emphasis; between letters it is none
    |\](?=[(\[])|^\[(?=.*\]:)  # links
    |^[#>]|^[=+-](?![\w.])  # headings, quotations and lists""",
    re.VERBOSE,
)
_TAGS, _ENTITIES = re.compile(r"<(?=[A-Za-z/!?])"), re.compile(r"&(?=#?\w+;)")


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "—": "---", "±": r"$\pm$", MINUS: "$-$",
    "Δ": r"$\Delta$", "→": r"$\rightarrow$", "†": r"$\dagger$",
    "‡": r"$\ddagger$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "×": r"$\times$", "…": r"\ldots{}", "·": r"$\cdot$",
    "∪": r"$\cup$", "α": r"$\alpha$", "λ": r"$\lambda$", "τ": r"$\tau$", "≥": r"$\geq$", "≤": r"$\leq$", 
    "•": r"$\bullet$", "<": r"\textless{}", ">": r"\textgreater{}", "\0": "{}",
    "“": "``", "”": "''", "‘": "`", "’": "'", "\N{THIN SPACE}": r"\,", "√": r"$\surd$", "²": r"\textsuperscript{2}",
} | {digit: rf"\textsuperscript{{{plain}}}" for plain, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}  # fmt: skip


def escape_tex(text: str) -> str:
    """``text`` on one line as LaTeX that prints exactly it; letters that a font lacks are left to the document."""
    text = re.sub(r"([-'`,<>!?])(?=[-'`,<>])", "\\1\0", _one_line(text))  # else the two become one sign
    escaped = "".join(_TEX.get(character, character) for character in text)
    # Behind the end of a line, a star or a bracket would be taken for an argument of the command before it.
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def to_tex(table: Table) -> str:
    """A LaTeX ``table`` float with booktabs rules; needs ``\\usepackage{booktabs}``, and graphicx if it is wide."""
    packages, kind = ("booktabs,graphicx", "table*") if table.wide else ("booktabs", "table")
    groups, start, rules = [], 1, []
    for title, width in table.groups():
        groups.append(rf"\multicolumn{{{width}}}{{c}}{{{escape_tex(title)}}}")
        if title:
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    lines = [rf"% needs \usepackage{{{packages}}}", rf"\begin{{{kind}}}", r"\centering\small"]
    lines.append(rf"\caption{{{escape_tex(table.caption)}}}")
    lines += [r"\resizebox{\textwidth}{!}{%"] if table.wide else []
    lines.append(rf"\begin{{tabular}}{{@{{}}{''.join(column.align for column in table.columns)}@{{}}}}")
    lines.append(r"\toprule")
    if rules:
        lines += [" & ".join(groups) + r" \\", "".join(rules)]
    lines += [" & ".join(escape_tex(column.title) for column in table.columns) + r" \\", r"\midrule"]
    for index, (section, rows) in enumerate(table.sections()):
        if index:
            lines.append(r"\addlinespace")
        if section:
            lines.append(rf"\multicolumn{{{len(table.columns)}}}{{@{{}}l}}{{\emph{{{escape_tex(section)}}}}} \\")
        for row in rows:
            texts = [(escape_tex(cell.text), cell.bold) for cell in row.cells]
            lines.append(" & ".join(rf"\textbf{{{text}}}" if bold else text for text, bold in texts) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}" + ("}" if table.wide else "")]
    lines += [rf"\par\smallskip\footnotesize {escape_tex(f'{mark} {note}')}" for mark, note in table.notes]
    return "\n".join([*lines, rf"\end{{{kind}}}"]) + "\n"


def write_csv(path: Path, columns: list[str], records: Iterable[Mapping[str, object]]) -> None:
    """Tidy CSV with floats as ``%.6f`` and nothing for NaN or a missing key.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, as OWASP advises, unless it is a
    number or a contrast, which is made of weights and names of rows alone.
    """

    def text(column: str, value: object) -> object:
        if isinstance(value, float):
            return f"{value:.6f}" if math.isfinite(value) else ""
        if isinstance(value, str) and column != "contrast":
            return no_formula(value)
        return "" if value is None else value

    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([text(column, record.get(column)) for column in columns] for record in records)


def no_formula(text: str) -> str:
    """``text`` as a cell of a CSV file that no spreadsheet takes for a formula; a number is none."""
    if text.startswith(("=", "+", "-", "@", "\t", "\r")) and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", text):
        return f"'{text}"
    return text


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8; the file appears whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
