"""The tables beyond mIoU: every quantity on the main average, boundaries by target, power, and all values as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from flexseg.analysis.stats.definitions import Quantity
from flexseg.analysis.stats.domains import target_title
from flexseg.analysis.stats.formats import (
    DASH,
    Cell,
    Column,
    Table,
    difference_cell,
    make_row,
    mean_text,
    number,
    write_csv,
)
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Noise, detectable, power, seeds_needed
from flexseg.analysis.tables.common import (
    Notes,
    TableFiles,
    averages_text,
    difference_record,
    how,
    mean_record,
)

WORSE = "‡"
EFFECTS = (1.0, 1.5, 2.0)
SOUGHT = (0.5, 1.0, 1.5, 2.0)
_MARKS = (
    "Arrows point to the better direction. Bold: shown to be better than the reference, that is, the interval of the "
    f"paired difference excludes zero, for a single target after Holm over the targets; {WORSE}: shown to be worse. "
    "The height of a value marks nothing."
)


def metrics_table(scores: Scores) -> Table:
    """Rows × quantities on the main average, and the gain over the row that is trained on the source alone."""
    benchmark, notes = scores.benchmark, Notes(scores)
    chosen, source = _chosen(scores), scores.source_only
    rows = []
    for row in benchmark.rows:
        cells: list[str | Cell] = [_mean_cell(scores, row, scores.main, each) for each in chosen]
        if source:
            cells.append("" if row == source else difference_cell(scores.against(row, source)[scores.main]))
        rows.append(make_row(notes.title(row), *cells))
    columns = [Column("Row", "l"), *[_head(each) for each in chosen]]
    columns += [Column("Δ source only")] if source else []
    units = [each.name for each in chosen if each.unit != "%"]
    caption = (
        f"Quantities on {target_title(scores, scores.main)}, in percent"
        + (f" ({', '.join(units)}: nats a pixel)" if units else "")
        + f". {averages_text(scores)} {_MARKS} The reference is “{benchmark.row(benchmark.reference).title}”. "
        + ("Δ source only: mIoU minus that of the row trained on the source alone. " if source else "")
        + f"There is no correction for the number of quantities. {how(scores)}"
    )
    return Table("metrics", f"{benchmark.title}: quantities", caption, columns, rows, notes.lines(), wide=True)


def boundary_table(scores: Scores) -> Table:
    """Boundary IoU and F1 at every width and the error of every ring, for every row, target by target."""
    benchmark, notes = scores.benchmark, Notes(scores)
    chosen, rows = _boundary(scores), []
    for target, row in product(benchmark.targets, benchmark.rows):
        cells = [_mean_cell(scores, row, target, each) for each in chosen]
        rows.append(make_row(notes.title(row), *cells, section=target_title(scores, target)))
    columns = [Column("Row", "l"), *[_head(each, grouped=True) for each in chosen]]
    rings = ", ".join(
        f"{each.name.removesuffix(' error')}: {each.description}" for each in chosen if each.counts == "rings"
    )
    caption = (
        "Boundary IoU and F1 (percent, mean over the classes with a boundary in the truth) by width in pixels, and the "
        f"share of wrong pixels (percent) by distance to another class. {rings}. {_MARKS} The reference is "
        f"“{benchmark.row(benchmark.reference).title}”. {how(scores)}"
    )
    return Table("boundary", f"{benchmark.title}: boundaries", caption, columns, rows, notes.lines(), wide=True)


def power_table(scores: Scores) -> Table:
    """For each average: the spread that was seen, what these seeds can show, and how many seeds more would take."""
    rows = [
        make_row(
            record["rows"] if scores.own_variance else record["average"],
            number(record["paired_sd"], 2),
            str(record["freedom"]),
            *[number(100 * record[f"power_{effect:g}"], 0) for effect in EFFECTS],
            number(record["detectable"], 2),
            *[str(record[f"seeds_{effect:g}"] or DASH) for effect in SOUGHT],
            section=record["average"] if scores.own_variance else "",
        )
        for record in _power_records(scores)
    ]
    planned = len(scores.benchmark.seeds)
    columns = [Column("Pair" if scores.own_variance else "Average", "l"), Column("paired sd"), Column("df")]
    heading = f"power (%) with {planned} seeds for a difference of"
    columns += [*[Column(f"{effect:g}", group=heading) for effect in EFFECTS], Column("smallest at 80 %")]
    columns += [Column(f"{effect:g}", group="seeds for 80 % power at a difference of") for effect in SOUGHT]
    spread = "of this pair" if scores.own_variance else "from the residual of the table of rows × seeds"
    caption = (
        "What a paired difference in mIoU (percentage points) between two rows could show. Paired sd: standard "
        f"deviation of the difference on one seed, {spread} with df degrees of "
        "freedom. Test: two-sided at 5 %, with the degrees of freedom that these rows would have with that many seeds. "
        f"The variance of the test images comes on top. {averages_text(scores)}"
    )
    return Table("power", f"{scores.benchmark.title}: power", caption, columns, rows)


def _chosen(scores: Scores) -> list[Quantity]:
    """All quantities except the boundary table's; of those, the boundary IoU and F1 of one width."""
    protocol = scores.benchmark.protocol
    widths = protocol.boundary_tolerances
    width = protocol.boundary_band if protocol.boundary_band in widths else widths[len(widths) // 2]
    kept = {f"boundary IoU ({width} px)", f"boundary F1 ({width} px)"}
    of_boundary = {each.name for each in _boundary(scores)} - kept
    return [each for each in scores.quantities.values() if each.name not in of_boundary]


def _boundary(scores: Scores) -> list[Quantity]:
    return [each for each in scores.quantities.values() if each.counts in ("boundary_iou", "boundary_f1", "rings")]


def _head(quantity: Quantity, grouped: bool = False) -> Column:
    if not grouped:
        return Column(f"{quantity.name} {quantity.arrow}")
    if quantity.counts == "rings":
        return Column(quantity.name.removesuffix(" error"), group=f"error {quantity.arrow}")
    name, _, width = quantity.name.partition(" (")
    return Column(width.removesuffix(")"), group=f"{name} {quantity.arrow}")


def _mean_cell(scores: Scores, row: str, column: str, quantity: Quantity) -> Cell:
    """Mean ± half width; bold if shown to be better than the reference, marked if shown to be worse."""
    text = mean_text(scores.mean(row, column, quantity.name), quantity.digits)
    if row == scores.benchmark.reference:
        return Cell(text)
    difference = scores.against(row, scores.benchmark.reference, quantity.name)[column]
    better = (difference.value > 0) == quantity.higher_is_better
    if not difference.shown:
        return Cell(text)
    return Cell(text, bold=True) if better else Cell(text + WORSE)


def _quantity_records(scores: Scores, columns: list[str], quantities: list[Quantity]) -> Iterator[dict[str, object]]:
    benchmark = scores.benchmark
    for row, column, each in product(benchmark.rows, columns, quantities):
        record: dict[str, object] = {
            "row": row, "title": benchmark.row(row).title, "target": column, "quantity": each.name,
            "unit": each.unit, "better": "higher" if each.higher_is_better else "lower",
        }  # fmt: skip
        record |= mean_record(scores.mean(row, column, each.name))
        for name, other in (("reference", benchmark.reference), ("source_only", scores.source_only)):
            if other and other != row and (name == "reference" or each.name == "mIoU"):
                found = difference_record(scores.against(row, other, each.name)[column])
                record |= {f"{name}_{key}": value for key, value in found.items()}
        yield record


def _metrics_records(scores: Scores) -> Iterator[dict[str, object]]:
    yield from _quantity_records(scores, [scores.main], list(scores.quantities.values()))


def _boundary_records(scores: Scores) -> Iterator[dict[str, object]]:
    yield from _quantity_records(scores, scores.benchmark.targets, _boundary(scores))


def _power_records(scores: Scores) -> Iterator[dict[str, Any]]:
    planned = len(scores.benchmark.seeds)
    if scores.own_variance:
        yield from _pair_power_records(scores)
        return
    for average in scores.averages:
        noise = scores.noise(average) or Noise(float("nan"), 0)
        sd, rows = noise.paired_sd, noise.freedom // max(planned - 1, 1) + 1
        record = {"average": average, "quantity": "mIoU", "rows": rows, "seeds": planned}
        record |= {"paired_sd": sd, "freedom": noise.freedom or DASH, "detectable": detectable(sd, planned, rows)}
        record |= {f"power_{effect:g}": power(effect, sd, planned, rows) for effect in EFFECTS}
        yield record | {f"seeds_{effect:g}": seeds_needed(effect, sd, rows) for effect in SOUGHT}


def _pair_power_records(scores: Scores) -> Iterator[dict[str, Any]]:
    """For every row against the reference, with its own spread; ``seeds`` are those that both have planned."""
    benchmark = scores.benchmark
    for average, row in product(scores.averages, benchmark.rows):
        if row == benchmark.reference or scores.is_fixed(row):
            continue
        paired = scores.paired(row, benchmark.reference, average)
        planned = min(len(benchmark.planned_seeds(each)) for each in (row, benchmark.reference))
        record = {"average": average, "quantity": "mIoU", "rows": f"{row} − {benchmark.reference}", "seeds": planned}
        record |= {"paired_sd": paired.sd, "freedom": paired.n - 1 if paired.n > 1 else DASH}
        record |= {"detectable": paired.detectable()}
        record |= {f"power_{effect:g}": paired.power(effect, planned) for effect in EFFECTS}
        yield record | {f"seeds_{effect:g}": paired.seeds_needed(effect) for effect in SOUGHT}


def _long_records(scores: Scores) -> Iterator[dict[str, object]]:
    benchmark, source = scores.benchmark, scores.source_only
    units = {each.name: each.unit for each in scores.quantities.values()}
    for row, column in product(benchmark.rows, scores.columns):
        name = {"row": row, "title": benchmark.row(row).title, "target": column}
        values = {quantity: scores.per_seed(row, column, quantity) for quantity in units}
        if source:
            values["mIoU gain over source only"] = values["mIoU"] - scores.per_seed(source, column)
        for quantity, seeds in values.items():
            for seed, value in zip(benchmark.seeds, seeds.tolist(), strict=True):
                yield name | {"seed": seed, "quantity": quantity, "unit": units.get(quantity, "%"), "value": value}


def write_long(scores: Scores, folder: Path) -> Path:
    """Write ``scores_long.csv``: every quantity on every target and average, one line per row and seed; its path."""
    path = folder / "scores_long.csv"
    write_csv(path, ["row", "title", "seed", "target", "quantity", "unit", "value"], _long_records(scores))
    return path


_COLUMNS = [
    "row", "title", "target", "quantity", "unit", "better", "value", "low", "high", "n",
    *[f"{other}_{key}" for other in ("reference", "source_only")
      for key in ("value", "low", "high", "p", "p_holm", "effect_size")],
]  # fmt: skip
METRIC_TABLES: dict[str, TableFiles] = {
    "metrics": (metrics_table, _COLUMNS, _metrics_records),
    "boundary": (boundary_table, _COLUMNS, _boundary_records),
    "power": (
        power_table,
        [
            "average", "quantity", "rows", "seeds", "freedom", "paired_sd", "detectable",
            *[f"power_{effect:g}" for effect in EFFECTS], *[f"seeds_{effect:g}" for effect in SOUGHT],
        ],
        _power_records,
    ),
}  # fmt: skip
"""The tables of this module, by name: how each is made for people, and its CSV."""
