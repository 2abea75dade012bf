"""The literature's numbers, as data: read from ``flexseg/published/<name>.csv``, never mixed with measured ones."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flexseg.analysis.effects import cell_of
from flexseg.analysis.records import Records
from flexseg.errors import UserError

FOLDER = Path(__file__).parent.parent / "published"
COLUMNS = ("Avg2", "Avg3", "Avg5")
HEADING = "published on other data (GTA5 → …)"


@dataclass(frozen=True)
class Published:
    """One number: mIoU in percent of a method on a target or average, where it stands and how it was read."""

    table: str
    method: str
    trunk: str
    source: str
    gap: bool
    ube: bool
    has: bool
    target: str
    miou: float
    reference: str
    evidence: str
    protocol: str

    @property
    def cell(self) -> dict[str, bool]:
        """Component switches by lower-case component name."""
        return {"gap": self.gap, "ube": self.ube, "has": self.has}


@cache
def load_published(name: str, folder: Path = FOLDER) -> tuple[Published, ...]:
    """All numbers of ``<name>.csv``."""
    path = folder / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.csv")))
        raise UserError(f"published: there is no {path.name} in flexseg/published; it has {known}")
    with path.open(newline="") as file:
        return tuple(
            Published(
                table=record["table"],
                method=record["method"],
                trunk=record["trunk"],
                source=record["source"],
                gap=record["gap"] == "1",
                ube=record["ube"] == "1",
                has=record["has"] == "1",
                target=record["target"],
                miou=float(record["miou"]),
                reference=record["reference"],
                evidence=record["evidence"],
                protocol=record["protocol"],
            )
            for record in csv.DictReader(file)
        )


def all_published(records: Records) -> list[Published]:
    """The numbers that the benchmark file names."""
    return [number for name in records.benchmark.published for number in load_published(name)]


def published_for(records: Records, row: str, trunk: str = "DAFormer, MiT-B5") -> dict[str, float]:
    """The published averages that correspond to ``row``: same component switches, default generated data; else {}."""
    benchmark = records.benchmark
    if (benchmark.row(row).generated or benchmark.generated) != benchmark.generated:
        return {}
    cell = cell_of(records, row)
    return {} if cell is None else published_cell(records, cell, trunk)


def published_cell(records: Records, cell: tuple[bool, ...], trunk: str = "DAFormer, MiT-B5") -> dict[str, float]:
    """The published averages of one cell of the factorial; {} if it was not published."""
    switches = dict(zip((name.lower() for name in records.benchmark.ablation.components), cell, strict=True))
    return {
        number.target: number.miou
        for number in all_published(records)
        if number.table in ("main", "ablation") and number.trunk == trunk and number.cell == switches
        if number.target in COLUMNS
    }
