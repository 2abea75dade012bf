"""What each table says: a :class:`~flexseg.analysis.stats.formats.Table` for people, tidy CSV for machines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from flexseg.analysis.stats.domains import class_names, class_places, class_set, target_title, unseen_text
from flexseg.analysis.stats.effects import Cell as Switches
from flexseg.analysis.stats.effects import Line, ablation_lines, all_cells, factorial_cells, factorial_effects, not_run
from flexseg.analysis.stats.formats import (
    DASH,
    SUPERSCRIPTS,
    Column,
    Table,
    difference_cell,
    make_row,
    mean_text,
    number,
    to_markdown,
    to_tex,
    write_csv,
    write_text,
)
from flexseg.analysis.stats.published import (
    heading,
    published_beside,
    published_cell,
    published_columns,
    remark,
    same_data,
)
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.claims import CLAIM_TABLES
from flexseg.analysis.tables.common import (
    Notes,
    TableFiles,
    averages_text,
    difference_record,
    intervals,
    mean_record,
)
from flexseg.analysis.tables.cost import COST_TABLES
from flexseg.analysis.tables.metrics import METRIC_TABLES, write_long

ON, OFF = "•", DASH


def comparison_table(scores: Scores) -> Table:
    """Rows × targets and averages, the paired difference to the reference, and the published numbers."""
    benchmark, notes = scores.benchmark, Notes(scores)
    reference = benchmark.row(benchmark.reference).title
    published = published_beside(scores.records)
    beside = published_columns(benchmark, published)
    rows = []
    for row in benchmark.rows:
        difference = scores.against(row, benchmark.reference)[scores.main]
        rows.append(
            make_row(
                notes.title(row),
                *[mean_text(scores.mean(row, column)) for column in scores.columns],
                "reference" if row == benchmark.reference else difference_cell(difference),
                str(scores.mean(row, scores.main).n),
                *[number(published[row].get(column, math.nan), 2) for column in beside],
            )
        )
    columns = [Column("Row", "l"), *[Column(target_title(scores, column)) for column in scores.columns]]
    columns += [Column(f"Δ {scores.main}"), Column("n")]
    columns += [Column(name, group=heading(benchmark)) for name in beside]
    caption = (
        f"mIoU in percent on the test images of each target; {unseen_text(scores)}. {averages_text(scores)} "
        f"{intervals(scores)} Δ is against “{reference}”; n is the number of seeds in {scores.main}, of "
        f"{len(benchmark.seeds)} planned."
    )
    if beside:
        caption += f" {remark(benchmark)}"
    return Table("comparison", f"{benchmark.title}: comparison", caption, columns, rows, notes.lines())


def _switches(cell: Switches | None, count: int) -> list[str]:
    return [""] * count if cell is None else [ON if on else OFF for on in cell]


def ablation_table(scores: Scores) -> Table:
    """Leave one out, controls and misalignment: the rows, the contrast that answers a question, the published cell."""
    benchmark, notes = scores.benchmark, Notes(scores)
    names, averages = list(benchmark.ablation.components), scores.averages
    lines = ablation_lines(scores.records)
    published = [_published_of_line(scores, line) for line in lines]
    beside = [name for name in averages if any(name in numbers for numbers in published)]
    rows = []
    for line, numbers in zip(lines, published, strict=True):
        differences = scores.contrasts(line.contrast) if line.contrast else {}
        rows.append(
            make_row(
                notes.title(line.row, line.label) if line.row else line.label,
                *_switches(line.cell, len(names)),
                *[mean_text(scores.mean(line.row, name)) if line.row else "" for name in averages],
                line.note or line.question,
                *[difference_cell(differences[name]) if differences else "" for name in averages],
                *[number(numbers[name], 2) if name in numbers else "" for name in beside],
                section=line.section,
            )
        )
    columns = [Column("Row", "l"), *[Column(name, "c") for name in names]]
    columns += [Column(name, group="mIoU %") for name in averages] + [Column("Difference", "l")]
    columns += [Column(f"Δ {name}", group="paired difference [95 % interval]") for name in averages]
    columns += [Column(name, group=heading(benchmark)) for name in beside]
    caption = f"Ablation. {ON} component on, {OFF} off. {averages_text(scores)} {intervals(scores)}"
    if beside:
        caption += " Published cells without a number were not published."
    return Table("ablation", f"{benchmark.title}: ablation", caption, columns, rows, notes.lines())


def _published_of_line(scores: Scores, line: Line) -> dict[str, float]:
    if not line.section.startswith("Components") or line.cell is None:
        return {}
    return published_cell(scores.records, line.cell)


def factorial_table(scores: Scores) -> Table:
    """The cells of the factorial around each full row, and its effects if all cells were run."""
    benchmark, notes = scores.benchmark, Notes(scores)
    names, averages = list(benchmark.ablation.components), scores.averages
    rows = []
    for full in [row for row in benchmark.ablation.full if row in benchmark.rows]:
        cells, title = factorial_cells(scores.records, full), benchmark.row(full).title
        for cell in all_cells(len(names)):
            row = cells.get(cell, "")
            values = [mean_text(scores.mean(row, name)) if row else DASH for name in averages]
            first = notes.title(row) if row else not_run(benchmark)
            section = f"Around {title}: mIoU in percent"
            rows.append(make_row(first, *_switches(cell, len(names)), *values, section=section))
        for effect, weights in factorial_effects(names, cells).items():
            effects = [difference_cell(scores.contrasts(weights)[name]) for name in averages]
            section = f"Around {title}: effects [95 % interval]"
            rows.append(make_row(effect, *_switches(None, len(names)), *effects, section=section))
    columns = [Column("Cell", "l"), *[Column(name, "c") for name in names], *[Column(name) for name in averages]]
    caption = (
        f"All 2{str(len(names)).translate(SUPERSCRIPTS)} combinations of the components, as far as they were run; "
        "effects are given once all were. An effect is the mean with the component minus the mean without it; an "
        f"interaction is half of what either gains from the other. {intervals(scores)}"
    )
    return Table("factorial", "Factorial", caption, columns, rows, notes.lines())


def per_class_table(scores: Scores) -> Table:
    """IoU of each class, mean over seeds and over the targets that have the class."""
    notes, places = Notes(scores), class_places(scores)
    columns = [Column("Row", "l"), *[Column(name) for name in class_names(scores)]]
    rows = [
        make_row(notes.title(row), *map(number, scores.class_average(row)[places])) for row in scores.benchmark.rows
    ]
    caption = "IoU in percent of each class: mean over seeds, then over the targets whose truth holds the class."
    return Table("per_class", f"{scores.benchmark.title}: classes", caption, columns, rows, notes.lines())


def per_condition_table(scores: Scores) -> Table:
    """mIoU on the images of each condition of each target."""
    notes, benchmark = Notes(scores), scores.benchmark
    pairs = [(target, condition) for target in benchmark.targets for condition in scores.conditions(target)]
    columns = [Column("Row", "l")]
    columns += [Column(condition, group=target_title(scores, target)) for target, condition in pairs]
    rows = [
        make_row(notes.title(row), *[mean_text(scores.condition_mean(row, *pair)) for pair in pairs])
        for row in benchmark.rows
    ]
    counts = ", ".join(f"{target_title(scores, t)} {c} {scores.conditions(t)[c]}" for t, c in pairs)
    caption = (
        "mIoU in percent on the images of one condition, over the classes that occur in them: mean over seeds ± the "
        f"half width of the 95 % t-interval. Images: {counts or 'none'}."
    )
    return Table("per_condition", f"{benchmark.title}: conditions", caption, columns, rows, notes.lines())


def _comparison_records(scores: Scores) -> Iterator[dict[str, object]]:
    benchmark, published = scores.benchmark, published_beside(scores.records)
    for row in benchmark.rows:
        name: dict[str, object] = {"row": row, "title": benchmark.row(row).title}
        for run in scores.records.of_row(row):
            yield name | {"quantity": "status", "seed": run.seed, "reason": run.reason or "finished"}
            for target, reason in run.absent.items():
                yield name | {"quantity": "status", "target": target, "seed": run.seed, "reason": reason}
        for quantity in scores.quantities:
            for column in scores.columns:
                for seed, value in zip(benchmark.seeds, scores.per_seed(row, column, quantity).tolist(), strict=True):
                    yield name | {"quantity": quantity, "target": column, "seed": seed, "value": value}
                yield (
                    name
                    | {"quantity": f"mean {quantity}", "target": column}
                    | mean_record(scores.mean(row, column, quantity))
                )
        if row != benchmark.reference:
            for column, difference in scores.against(row, benchmark.reference).items():
                of = {"quantity": "mIoU difference", "target": column, "reference": benchmark.reference}
                yield name | of | difference_record(difference)
        for column, value in published[row].items():
            yield name | {"quantity": published_quantity(scores), "target": column, "value": value}


def published_quantity(scores: Scores) -> str:
    """What published numbers are called in CSV files."""
    return "published mIoU" if same_data(scores.benchmark) else "published mIoU on other data"


def _ablation_records(scores: Scores) -> Iterator[dict[str, object]]:
    for line in ablation_lines(scores.records):
        name: dict[str, object] = {"section": line.section, "row": line.row, "title": line.label}
        name["question"] = line.question
        for column in scores.columns if line.row else ():
            yield name | {"quantity": "mean mIoU", "target": column} | mean_record(scores.mean(line.row, column))
        text = " ".join(f"{weight:+g}*{row}" for row, weight in line.contrast.items())
        for column, difference in (scores.contrasts(line.contrast) if line.contrast else {}).items():
            yield name | {"quantity": "effect", "target": column, "contrast": text} | difference_record(difference)
        if line.note:
            yield name | {"quantity": "status", "reason": line.note}
        for column, value in _published_of_line(scores, line).items():
            yield name | {"quantity": published_quantity(scores), "target": column, "value": value}
    for full in scores.benchmark.ablation.full:
        effects = factorial_effects(list(scores.benchmark.ablation.components), factorial_cells(scores.records, full))
        for effect, weights in effects.items():
            name = {"section": f"Factorial around {full}", "row": full, "title": effect, "quantity": "effect"}
            for column, difference in scores.contrasts(weights).items():
                yield name | {"target": column} | difference_record(difference)


def _class_records(scores: Scores) -> Iterator[dict[str, object]]:
    for row, target in product(scores.benchmark.rows, scores.benchmark.targets):
        means, of_seed = scores.class_means(row, target), scores.class_ious(row, target)
        for place, name in class_set(scores).names.items():
            mean = means[place]
            record: dict[str, object] = {"row": row, "target": target, "class": name}
            yield record | {"iou": mean.value, "half_width": mean.half, "n": mean.n}
            for seed, value in zip(scores.benchmark.seeds, of_seed[:, place].tolist(), strict=True):
                yield record | {"seed": seed, "iou": value}


def _condition_records(scores: Scores) -> Iterator[dict[str, object]]:
    for row, target in product(scores.benchmark.rows, scores.benchmark.targets):
        for condition, images in scores.conditions(target).items():
            mean = scores.condition_mean(row, target, condition)
            record = {"row": row, "target": target, "condition": condition, "images": images, "miou": mean.value}
            yield record | {"half_width": mean.half, "n": mean.n}


_VALUES = ["value", "low", "high", "p", "p_holm", "effect_size", "n", "reason"]
_TABLES: dict[str, TableFiles] = {
    "comparison": (
        comparison_table, ["row", "title", "quantity", "target", "seed", "reference", *_VALUES], _comparison_records,
    ),
    "ablation": (
        ablation_table,
        ["section", "row", "title", "question", "quantity", "target", "contrast", *_VALUES],
        _ablation_records,
    ),
    "per_class": (per_class_table, ["row", "target", "class", "seed", "iou", "half_width", "n"], _class_records),
    "per_condition": (
        per_condition_table, ["row", "target", "condition", "images", "miou", "half_width", "n"], _condition_records,
    ),
}  # fmt: skip


def write_all(scores: Scores, folder: Path) -> list[Path]:
    """Write every table as CSV, Markdown and LaTeX into ``folder``, then every value as CSV; the paths, in order."""
    paths = []
    claims = CLAIM_TABLES if scores.benchmark.claimed else {}
    for name, (make, columns, records) in (_TABLES | METRIC_TABLES | COST_TABLES | claims).items():
        table = make(scores)
        write_csv(folder / f"{name}.csv", columns, records(scores))
        write_text(folder / f"{name}.md", to_markdown(table))
        write_text(folder / f"{name}.tex", to_tex(table))
        paths += [folder / f"{name}.{suffix}" for suffix in ("csv", "md", "tex")]
    return [*paths, write_long(scores, folder)]
