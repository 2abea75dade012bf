"""The ablation: which rows are cells of the factorial, and which contrasts answer which question."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any

from flexseg.analysis.stats.records import Records
from flexseg.benchmark import Benchmark
from flexseg.errors import UserError, did_you_mean

Cell = tuple[bool, ...]
FACTORIAL = "factorial"
"""The study of a benchmark, where it has one, that runs every cell."""


@dataclass(frozen=True)
class Line:
    """A line of the ablation: a row (or none) and a contrast of rows, in words and numbers.

    ``cell`` are the component switches of the row, if it has any; ``note`` says why there is no contrast.
    """

    section: str
    label: str
    question: str
    row: str = ""
    cell: Cell | None = None
    contrast: dict[str, float] = field(default_factory=dict)
    note: str = ""


def resolved_options(records: Records, row: str) -> tuple[dict[str, Any], bool]:
    """The options of a row with its method's defaults, and whether these are known from a finished run.

    Where no run of the method recorded them, a component's switch that some full row does not write is on by default:
    the benchmark says that the full rows have every component.
    """
    benchmark = records.benchmark
    (method, on), written = _methods(benchmark, row), benchmark.row(row).options
    recorded = [run for run in records.finished() if run.options and _methods(benchmark, run.row) == (method, on)]
    for run in recorded:
        if run.row == row:
            return {name: option.get("value") for name, option in run.options.items()}, True
    for run in recorded:
        return {name: option.get("default") for name, option in run.options.items()} | written, True
    full = [benchmark.row(name) for name in benchmark.ablation.full if name in benchmark.rows]
    silent = [s for s in benchmark.ablation.components.values() if any(s not in each.options for each in full)]
    return (dict.fromkeys(silent, True) if method in {each.method for each in full} else {}) | written, False


def _methods(benchmark: Benchmark, row: str) -> tuple[str, str]:
    """The method of a row and the one on which it stands, or nothing."""
    return benchmark.row(row).method, benchmark.row(row).base


def cell_of(records: Records, row: str) -> Cell | None:
    """The component switches of ``row``; None for a row of another method than the full rows', or if they are unknown.

    Raises:
        UserError: a component's switch is no option of the method.
    """
    benchmark, ablation = records.benchmark, records.benchmark.ablation
    if row == ablation.none:
        return (False,) * len(ablation.components)
    if benchmark.row(row).method not in {benchmark.row(f).method for f in ablation.full if f in benchmark.rows}:
        return None
    options, recorded = resolved_options(records, row)
    for component, switch in ablation.components.items():
        if switch not in options and recorded:
            raise UserError(
                f"benchmark {benchmark.name}, ablation.components.{component}: methods/{benchmark.row(row).method}.py "
                f"has no option {switch!r}{did_you_mean(switch, options)}"
            )
        if switch not in options:
            return None
    return tuple(bool(options[switch]) for switch in ablation.components.values())


def factorial_cells(records: Records, full: str) -> dict[Cell, str]:
    """The rows that are cells of the factorial around ``full``: same method, data and other options; and ``none``."""
    benchmark = records.benchmark
    if full not in benchmark.rows:
        return {}
    wanted = _setting(records, full)
    cells: dict[Cell, str] = {}
    for row in [full, *benchmark.rows]:
        if row == benchmark.ablation.none or _methods(benchmark, row) != _methods(benchmark, full):
            continue
        cell = cell_of(records, row)
        if cell is not None and _setting(records, row) == wanted:
            cells.setdefault(cell, row)
    if benchmark.ablation.none in benchmark.rows:
        cells[(False,) * len(benchmark.ablation.components)] = benchmark.ablation.none
    return cells


def _setting(records: Records, row: str) -> tuple[str, dict[str, Any]]:
    switches = set(records.benchmark.ablation.components.values())
    options = {name: value for name, value in resolved_options(records, row)[0].items() if name not in switches}
    generated = records.benchmark.generated_of(row)
    return generated, {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def not_run(benchmark: Benchmark) -> str:
    """The text for a cell of the factorial without a row, with the study that runs it if the benchmark has one."""
    return f"not run: --config study={FACTORIAL}" if FACTORIAL in benchmark.studies else "not run"


def all_cells(components: int) -> list[Cell]:
    """All 2^k cells, none first and all last, in the order of how many are on."""
    return sorted(product((False, True), repeat=components), key=lambda cell: (sum(cell), [not on for on in cell]))


def factorial_effects(names: list[str], cells: Mapping[Cell, str]) -> dict[str, dict[str, float]]:
    """Contrasts of all main effects and interactions of a complete 2^k factorial; {} if a cell is missing.

    The effect of a set S of components is 2^{1−k} Σ_cells Π_{i∈S} (±1) · mIoU: for one component the mean with it minus
    the mean without it; for two, half of what either gains from the other's presence.
    Source: Box, Hunter & Hunter, *Statistics for Experimenters*, § 5.
    """
    every = all_cells(len(names))
    if any(cell not in cells for cell in every):
        return {}
    effects = {}
    for size in range(1, len(names) + 1):
        for chosen in combinations(range(len(names)), size):
            signs = {cell: math.prod(1 if cell[index] else -1 for index in chosen) for cell in every}
            weights = {cells[cell]: sign * 2.0 ** (1 - len(names)) for cell, sign in signs.items()}
            effects[" × ".join(names[index] for index in chosen)] = weights
    return effects


def ablation_lines(records: Records) -> list[Line]:
    """The lines of the ablation table: leave one out for every full row, controls, and misalignment."""
    benchmark = records.benchmark
    full_rows = [row for row in benchmark.ablation.full if row in benchmark.rows]
    first = next(iter(full_rows), "")
    used = {benchmark.reference, first, *benchmark.ablation.aligned.values()}
    lines: list[Line] = []
    for full in full_rows:
        cells = factorial_cells(records, full)
        used |= set(cells.values())
        lines += _leave_one_out(records, full, cells)
    for row in benchmark.rows:
        if row not in used:
            lines += _control(records, row, first)
    return lines + _alignment(records)


def _leave_one_out(records: Records, full: str, cells: Mapping[Cell, str]) -> list[Line]:
    benchmark, none = records.benchmark, records.benchmark.ablation.none
    names, section = list(benchmark.ablation.components), f"Components of {benchmark.row(full).title}"
    lines = []

    def add(row: str, question: str, cell: Cell | None, contrast: dict[str, float]) -> None:
        lines.append(Line(section, benchmark.row(row).title, question, row, cell, contrast))

    if none in benchmark.rows and none != full:
        add(none, "–", cell_of(records, none), {})
        add(full, "all together: this row − baseline", (True,) * len(names), {full: 1.0, none: -1.0})
    for index, name in enumerate(names):
        cell = tuple(place != index for place in range(len(names)))
        question = f"effect of {name}: full − this row"
        if row := cells.get(cell, ""):
            add(row, question, cell, {full: 1.0, row: -1.0})
        else:
            lines.append(Line(section, f"without {name}", question, "", cell, note=not_run(benchmark)))
    for cell in all_cells(len(names)):
        if 0 < sum(cell) < len(names) - 1 and cell in cells:
            row = cells[cell]
            add(row, "this row − baseline", cell, {row: 1.0, none: -1.0} if none in benchmark.rows else {})
    return lines


def _control(records: Records, row: str, full: str) -> list[Line]:
    benchmark, section = records.benchmark, "Controls and other rows"
    contrast = {row: 1.0, benchmark.reference: -1.0}
    lines = [Line(section, benchmark.row(row).title, "this row − baseline", row, cell_of(records, row), contrast)]
    if full:
        question = f"{benchmark.row(full).title} − this row"
        lines.append(Line(section, "", question, contrast={full: 1.0, row: -1.0}))
    return lines


def alignment_pairs(records: Records) -> dict[str, str]:
    """Rows and their twins on aligned generated data, where both are selected."""
    rows = records.benchmark.rows
    return {row: twin for row, twin in records.benchmark.ablation.aligned.items() if row in rows and twin in rows}


def _alignment(records: Records) -> list[Line]:
    benchmark, pairs = records.benchmark, alignment_pairs(records)
    section, none = "Misalignment of the generated data", records.benchmark.ablation.none
    lines = []
    for row, twin in pairs.items():
        cell, contrast = cell_of(records, twin), {row: 1.0, twin: -1.0}
        lines.append(Line(section, benchmark.row(twin).title, "cost: misaligned − aligned", twin, cell, contrast))
    for row in pairs:
        if none in pairs and row != none:
            contrast = {row: 1.0, pairs[row]: -1.0, none: -1.0, pairs[none]: 1.0}
            question = f"cost for {benchmark.row(row).title} − cost for baseline"
            lines.append(Line(section, "", question, contrast=contrast))
    for row, twin in benchmark.ablation.aligned.items():
        if row not in pairs and row in benchmark.rows:
            label = f"{benchmark.row(row).title}, aligned"
            lines.append(Line(section, label, "–", note=f"not run: row {twin}"))
    return lines
