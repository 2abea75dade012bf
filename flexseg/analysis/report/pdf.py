"""The two reports: which pages, in which order. The answer stands first, then what it rests on, then the details."""

from __future__ import annotations

from pathlib import Path

from flexseg.analysis.figures import plates
from flexseg.analysis.report.frontpage import draw_front
from flexseg.analysis.report.pages import Book, open_book
from flexseg.analysis.stats.formats import Cell, Column, Row, Table, difference_cell, mean_text, number
from flexseg.analysis.stats.published import Published, all_published, heading, same_data
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.cost import cost_table, origins_table
from flexseg.analysis.tables.metrics import boundary_table, metrics_table, power_table
from flexseg.analysis.tables.write import Notes, ablation_table, comparison_table, factorial_table

PRINCIPAL = ("main", "baselines")
"""Tables of published numbers that compare methods, beside those that take one apart."""


def make_report(scores: Scores, kind: plates.Kind, output: Path) -> None:
    """Write the report of ``kind`` to ``output``."""
    benchmark = scores.benchmark
    title = f"{benchmark.title}: {kind} report"
    with open_book(output, title, f"Protocol {benchmark.protocol.id}", f"{benchmark.title} · {kind} report") as book:
        draw_front(book, scores, kind)
        if kind == "comparison":
            _comparison(book, scores)
        else:
            _ablation(book, scores)


def _comparison(book: Book, scores: Scores) -> None:
    book.tables([comparison_table(scores)])
    _figures(book, plates.comparison_answers(scores))
    book.tables([metrics_table(scores), power_table(scores)])
    _figures(book, plates.comparison_details(scores))
    _figures(book, plates.pictures(scores))
    book.tables([cost_table(scores), origins_table(scores), *_published(scores), *book.missing_table()])


def _ablation(book: Book, scores: Scores) -> None:
    book.tables([ablation_table(scores)])
    _figures(book, plates.ablation_answers(scores))
    book.tables([factorial_table(scores), boundary_table(scores)])
    _figures(book, plates.ablation_details(scores))
    _figures(book, plates.pictures(scores))
    book.tables([power_table(scores), *_published(scores), *book.missing_table()])


def _figures(book: Book, listed: list[plates.Plate]) -> None:
    for plate in listed:
        book.figure(plate)


def _published(scores: Scores) -> list[Table]:
    numbers = all_published(scores.records)
    return [published_table(scores, numbers)] if any(each.table in PRINCIPAL for each in numbers) else []


def published_table(scores: Scores, numbers: list[Published]) -> Table:
    """As published, by method and trunk, and as measured here, with gains over the reference; columns of their own.

    Of a benchmark on the same data, the comparison has both side by side; here stands all else that was published.
    """
    names = list(dict.fromkeys(each.target for each in numbers if each.table in PRINCIPAL))
    averages = [] if same_data(scores.benchmark) else list(scores.benchmark.averages)
    blank = [Cell("")] * len(averages)
    rows = []
    settings = dict.fromkeys((each.table, each.trunk, each.method) for each in numbers)
    for table, trunk, method in settings:
        if table == "ablation" and method in ("DGInStyle", "FLEX-Seg"):
            continue
        found = {
            each.target: each.miou
            for each in numbers
            if (each.table, each.trunk, each.method) == (table, trunk, method)
        }
        values = [Cell(number(found[name], 2) if name in found else "–") for name in names]
        rows.append(Row((Cell(f"{method} ({trunk})"), *values, *blank, *blank), "Published"))
    nothing = [Cell("")] * len(names)
    benchmark, notes = scores.benchmark, Notes(scores)
    for row in (benchmark.ablation.none, *benchmark.ablation.full) if averages else ():
        if row in benchmark.rows:
            means = [Cell(mean_text(scores.mean(row, name))) for name in averages]
            differences = scores.against(row, benchmark.reference)
            gains = [
                Cell("") if row == benchmark.reference else difference_cell(differences[name]) for name in averages
            ]
            rows.append(Row((Cell(notes.title(row)), *nothing, *means, *gains), "Measured here"))
    columns = [Column("Row", "l"), *[Column(name, group=heading(benchmark)) for name in names]]
    columns += [Column(name, group=f"measured: {benchmark.title}") for name in averages]
    columns += [Column(f"Δ {name}", group="measured: paired difference") for name in averages]
    sources = dict.fromkeys(f"{each.reference}: {each.evidence}; {each.protocol}" for each in numbers)
    if averages:
        title = "Published beside measured"
        caption = (
            "Published numbers beside measured ones, in columns of their own: other data, trunk, schedule and targets, "
            "so only signs and patterns can be compared, never heights."
        )
    else:
        title = "Published"
        caption = (
            f"mIoU in percent as published, in brackets the trunk; here it is {benchmark.published_trunk}. The "
            "comparison has the numbers of this trunk beside the measured ones."
        )
    caption += f" Published without spread. Source: {' '.join(f'{source}.' for source in sources)}"
    return Table("published", title, caption, columns, rows, notes.lines())
