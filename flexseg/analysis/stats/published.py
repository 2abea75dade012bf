"""The literature's numbers: the files of ``flexseg/analysis/published``, never mixed with measured ones."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from flexseg.analysis.stats.effects import all_cells, factorial_cells
from flexseg.analysis.stats.records import Records
from flexseg.benchmark import Benchmark
from flexseg.errors import UserError

FOLDER = Path(__file__).parent.parent / "published"
AVERAGES = ("Avg2", "Avg3", "Avg5")


@dataclass(frozen=True)
class Published:
    """One number: mIoU in percent of a method on a target or average, with its source.

    ``switches`` tells which components were on, by the name of their option: every further column of the file, with 1
    or 0, or empty if that is unknown.
    """

    table: str
    method: str
    trunk: str
    source: str
    target: str
    miou: float
    reference: str
    evidence: str
    protocol: str
    switches: Mapping[str, bool]


@cache
def load_published(name: str, folder: Path = FOLDER) -> tuple[Published, ...]:
    """All numbers of ``<name>.csv``."""
    path = folder / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.csv")))
        raise UserError(f"published: there is no {path.name} in flexseg/analysis/published; it has {known}")
    with path.open(newline="") as file:
        return tuple(_parse(record) for record in csv.DictReader(file))


def _parse(record: dict[str, str]) -> Published:
    texts = {each.name: record.pop(each.name) for each in fields(Published) if each.type == "str"}
    miou = float(record.pop("miou"))
    return Published(**texts, miou=miou, switches={name: on == "1" for name, on in record.items() if on})


def all_published(records: Records) -> list[Published]:
    """The numbers that the benchmark file names; none where other classes are scored than those papers score."""
    if not records.benchmark.class_set.is_default:
        return []
    return [number for name in records.benchmark.published for number in load_published(name)]


def same_data(benchmark: Benchmark) -> bool:
    """Whether a benchmark uses the data sets of the published numbers, not analogues of them."""
    return not benchmark.domains[benchmark.source].rendered


def heading(benchmark: Benchmark) -> str:
    """The heading over columns of published numbers."""
    return "published" if same_data(benchmark) else "published on other data (GTA5 → …)"


def remark(benchmark: Benchmark) -> str:
    """What a caption says about the published numbers beside the measured ones."""
    if same_data(benchmark):
        return (
            "Published numbers are the papers', on these data and with this trunk. They come without spread, and what "
            "their protocols leave open is assumed here."
        )
    return "Published numbers come from other data, trunks and schedules and compare with each other only."


def published_beside(records: Records) -> dict[str, dict[str, float]]:
    """The published numbers that correspond to each row, by column; {} for a row that has none.

    A row names them by its key ``published``. Otherwise a row with the default generated data and the settings of a
    full row has those with its component switches.
    """
    benchmark, numbers = records.benchmark, all_published(records)
    cells = {
        row: cell
        for full in benchmark.ablation.full
        for cell, row in factorial_cells(records, full).items()
        if benchmark.generated_of(row) == benchmark.generated
    }
    found = {}
    for row in benchmark.rows:
        name = benchmark.row(row).published
        if name:
            found[row] = _values(benchmark, [each for each in numbers if each.method == name])
        else:
            found[row] = published_cell(records, cells[row]) if row in cells else {}
    return found


def published_columns(benchmark: Benchmark, beside: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The columns for which any row has a published number, by title.

    Where targets are analogues, these are the averages, all or none of them.
    """
    found = {name for numbers in beside.values() for name in numbers}
    return [name for name in _comparable(benchmark) if name in found or (found and not same_data(benchmark))]


def published_cell(records: Records, cell: tuple[bool, ...]) -> dict[str, float]:
    """The published numbers of one cell of the factorial; {} if it was not published."""
    switches = dict(zip(records.benchmark.ablation.components.values(), cell, strict=True))
    numbers = [each for each in all_published(records) if each.table in ("main", "ablation")]
    return _values(records.benchmark, [each for each in numbers if each.switches and each.switches == switches])


def published_effects(records: Records, column: str) -> dict[str, float]:
    """What each component is published to add on a column, in points: between two published cells that differ in it.

    Where several pairs were published, the one with the fewest other components.
    """
    components = records.benchmark.ablation.components
    cells = {
        cell: values[column]
        for cell in all_cells(len(components))
        if column in (values := published_cell(records, cell))
    }
    found: dict[str, float] = {}
    for place, component in enumerate(components):
        for cell, value in cells.items():
            other = (*cell[:place], True, *cell[place + 1 :])
            if not cell[place] and other in cells:
                found.setdefault(component, cells[other] - value)
    return found


def _values(benchmark: Benchmark, numbers: list[Published]) -> dict[str, float]:
    kept = [each for each in numbers if each.trunk == benchmark.published_trunk]
    return {each.target: each.miou for each in kept if each.target in _comparable(benchmark)}


def _comparable(benchmark: Benchmark) -> list[str]:
    """Names of the benchmark's columns that may hold published numbers."""
    if not same_data(benchmark):
        return list(AVERAGES)
    return [*[benchmark.domains[target].title for target in benchmark.targets], *benchmark.averages]
