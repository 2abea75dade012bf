"""Published numbers as a table of their own, beside what was measured here."""

from __future__ import annotations

from flexseg.analysis.stats.formats import Cell, Column, Row, Table, difference_cell, mean_text, number
from flexseg.analysis.stats.published import all_published, heading, same_data
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.common import Notes

PRINCIPAL = ("main", "baselines")
"""Tables of published numbers that compare methods, beside those that take one apart."""


def published_table(scores: Scores) -> Table:
    """As published, by method and trunk, and as measured here, with gains over the reference; columns of their own.

    Of a benchmark on the same data, the comparison has both side by side; here stands all else that was published.
    A benchmark for which nothing was published has a table without lines.
    """
    numbers = all_published(scores.records)
    names = list(dict.fromkeys(each.target for each in numbers if each.table in PRINCIPAL))
    averages = [] if same_data(scores.benchmark) else list(scores.benchmark.averages)
    blank = [Cell("")] * len(averages)
    rows: list[Row] = []
    if not names:
        return Table("published", "Published", "Nothing was published.", [Column("Row", "l")], rows)
    settings = dict.fromkeys((each.table, each.trunk, each.method) for each in numbers)
    principal = {(trunk, method) for table, trunk, method in settings if table in PRINCIPAL}
    for table, trunk, method in settings:
        if table == "ablation" and (trunk, method) in principal:  # it repeats the averages of the principal table
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
