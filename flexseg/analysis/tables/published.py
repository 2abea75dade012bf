"""The table of published numbers beside those measured here."""

from __future__ import annotations

import math
from collections import defaultdict

from flexseg.analysis.stats.formats import Column, Row, Table, difference_cell, make_row, mean_text, number
from flexseg.analysis.stats.published import all_published, heading, same_data
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.common import Notes

PRINCIPAL = ("main", "baselines")
"""Tables of published numbers that compare methods; the others are ablations of one."""


def published_table(scores: Scores) -> Table:
    """As published, by method and trunk, and in other columns as measured here, with gains over the reference.

    For a benchmark on the same data the comparison has both side by side, and this table only has published numbers.
    Without any it has no lines.
    """
    numbers = all_published(scores.records)
    names = list(dict.fromkeys(each.target for each in numbers if each.table in PRINCIPAL))
    averages = [] if same_data(scores.benchmark) else list(scores.benchmark.averages)
    if not names:
        return Table("published", "Published", "Nothing was published.", [Column("Row", "l")], [])
    rows: list[Row] = []
    found: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for each in numbers:
        found[each.table, each.trunk, each.method][each.target] = each.miou
    principal = {(trunk, method) for table, trunk, method in found if table in PRINCIPAL}
    for (table, trunk, method), values in found.items():
        if table != "ablation" or (trunk, method) not in principal:  # else it repeats averages of the principal table
            texts = [number(values.get(name, math.nan), 2) for name in names]
            blank = [""] * 2 * len(averages)
            rows.append(make_row(f"{method} ({trunk})", *texts, *blank, section="Published"))
    benchmark, notes = scores.benchmark, Notes(scores)
    for row in (benchmark.ablation.none, *benchmark.ablation.full) if averages else ():
        if row in benchmark.rows:
            means = [mean_text(scores.mean(row, name)) for name in averages]
            differences = scores.against(row, benchmark.reference)
            gains = ["" if row == benchmark.reference else difference_cell(differences[name]) for name in averages]
            rows.append(make_row(notes.title(row), *[""] * len(names), *means, *gains, section="Measured here"))
    columns = [Column("Row", "l"), *[Column(name, group=heading(benchmark)) for name in names]]
    columns += [Column(name, group=f"measured: {benchmark.title}") for name in averages]
    columns += [Column(f"Δ {name}", group="measured: paired difference") for name in averages]
    said: dict[str, dict[str, None]] = defaultdict(dict)  # of each reference: how it was read, and the protocols
    for each in numbers:
        said[each.reference] |= dict.fromkeys((each.evidence, each.protocol))
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
    sources = (f"{reference}: {'; '.join(texts)}." for reference, texts in said.items())
    caption += f" Published without spread. Source: {' '.join(sources)}"
    return Table("published", title, caption, columns, rows, notes.lines())
