"""The two reports: which pages, in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from flexseg.analysis import figures, figures_ablation
from flexseg.analysis.effects import factorial_cells
from flexseg.analysis.formats import Cell, Column, Row, Table, difference_cell, mean_text, number
from flexseg.analysis.frontpage import draw_front
from flexseg.analysis.pages import Book, open_book
from flexseg.analysis.panels import draw_panels
from flexseg.analysis.published import HEADING, Published, all_published
from flexseg.analysis.scores import Scores
from flexseg.analysis.statistics import t_interval
from flexseg.analysis.tables import Notes, ablation_table, comparison_table, factorial_table

CURVES = [("loss", "total loss"), ("loss/ce", "cross-entropy term"), ("loss/gap", "GAP term")]
HAS = [
    ("has/threshold", "threshold: chance of a uniform draw"),
    ("has/effective_sample_size", "effective sample size 1/Σp²"),
    ("has/generated_share", "share of draws from the generated data"),
]


CURVES_CAPTION = (
    "Loss terms as logged during training. Line: mean over the finished seeds; band: their range. Losses of rows "
    "with other terms are not comparable in height."
)
HAS_CAPTION = (
    "HAS over training: the threshold, below which a draw is uniform; the effective number of images, 1/Σp², of the "
    "hardness distribution; the share of images that were drawn from the generated data. Line: mean over the "
    "finished seeds; band: their range."
)


def make_report(scores: Scores, kind: Literal["comparison", "ablation"], output: Path) -> None:
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
    book.table(comparison_table(scores))
    with book.page("mIoU per target") as page:
        figures.miou_figure(page, scores)
    _differences(book, scores)
    with book.page("Classes") as page:
        figures.class_figure(page, scores)
    with book.page("Conditions") as page:
        figures.condition_figure(page, scores)
    book.table(cost_table(scores))
    draw_panels(book, scores)
    _published(book, scores)


def _differences(book: Book, scores: Scores) -> None:
    with book.page("Paired differences to the reference") as page:
        if len(scores.benchmark.rows) > 1:
            figures.difference_figure(page, scores)
        else:
            page.paragraph("Only the reference row was selected: there is no difference to show.", 10)


def _ablation(book: Book, scores: Scores) -> None:
    benchmark = scores.benchmark
    book.table(ablation_table(scores))
    _differences(book, scores)
    with book.page("Components, controls, misalignment") as page:
        figures_ablation.contrast_figure(page, scores)
    book.table(factorial_table(scores))
    for full in benchmark.ablation.full:
        if len(factorial_cells(scores.records, full)) == 2 ** len(benchmark.ablation.components):
            with book.page(f"Factorial effects around “{benchmark.row(full).title}”") as page:
                figures_ablation.factorial_figure(page, scores, full)
    with book.page("Boundary against interior") as page:
        figures_ablation.boundary_figure(page, scores)
    with book.page("Aligned against misaligned generated data") as page:
        figures_ablation.alignment_figure(page, scores)
    for heading, panels, caption in (
        ("Training", CURVES, CURVES_CAPTION),
        ("Hardness-aware sampling", HAS, HAS_CAPTION),
    ):
        with book.page(heading) as page:
            figures_ablation.curve_figure(page, scores, panels, caption)
    draw_panels(book, scores)
    _published(book, scores)


def cost_table(scores: Scores) -> Table:
    """Training time, image rate, peak memory and parameters of each row."""
    notes, rows = Notes(scores), []
    for row in scores.benchmark.rows:
        runs = [run for run in scores.records.of_row(row) if run.status == "finished"]
        cells = [Cell(notes.title(row))]
        for key, scale in (("train_seconds", 1.0), ("images_per_second", 1.0), ("peak_memory_bytes", 2.0**-20)):
            values = np.array([float(run.info[key]) * scale for run in runs if run.info.get(key) is not None])
            cells.append(Cell(mean_text(t_interval(values), 0)))
        parameters = {int(run.info["parameters"]) for run in runs if run.info.get("parameters") is not None}
        cells.append(Cell(", ".join(number(count / 1e6, 2) for count in sorted(parameters)) or "–"))
        rows.append(Row((*cells, Cell(str(len(runs))))))
    columns = [Column("Row", "l"), Column("training (s)"), Column("images/s"), Column("peak memory (MiB)")]
    columns += [Column("parameters (M)"), Column("n")]
    caption = (
        "What a run costs: wall time of training, training images per second, peak resident memory, parameters of "
        "the trained model. Mean over the finished runs ± half width of the 95 % t-interval; timings depend on what "
        "else the machine did."
    )
    return Table("cost", "Cost", caption, columns, rows, notes.lines())


def _published(book: Book, scores: Scores) -> None:
    numbers = all_published(scores.records)
    main = [each for each in numbers if each.table == "main"]
    if main:
        book.table(published_table(scores, numbers), "Published beside measured")


def published_table(scores: Scores, numbers: list[Published]) -> Table:
    """Gains over the plain baseline: as published, by trunk and cell, and as measured here, in columns of their own."""
    names = list(dict.fromkeys(each.target for each in numbers if each.table == "main"))
    averages = list(scores.benchmark.averages)
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
    for row in (benchmark.ablation.none, *benchmark.ablation.full):
        if row in benchmark.rows:
            means = [Cell(mean_text(scores.mean(row, name))) for name in averages]
            differences = scores.against(row, benchmark.reference)
            gains = [
                Cell("") if row == benchmark.reference else difference_cell(differences[name]) for name in averages
            ]
            rows.append(Row((Cell(notes.title(row)), *nothing, *means, *gains), "Measured here"))
    columns = [Column("Row", "l"), *[Column(name, group=HEADING) for name in names]]
    columns += [Column(name, group=f"measured: {benchmark.title}") for name in averages]
    columns += [Column(f"Δ {name}", group="measured: paired difference") for name in averages]
    sources = dict.fromkeys(f"{each.reference}: {each.evidence}; {each.protocol}" for each in numbers)
    caption = (
        "Published numbers beside measured ones, in columns of their own: other data, trunk, schedule and targets, "
        "so only signs and patterns can be compared, never heights. Published without seeds or spread. Source: "
        f"{' '.join(sources)}."
    )
    return Table("published", "Published beside measured", caption, columns, rows, notes.lines())
