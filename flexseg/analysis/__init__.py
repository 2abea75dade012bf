"""From records to tables, figures and reports. Reads files only and imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flexseg.benchmark import Benchmark


def write_tables(benchmark: Benchmark, results: Path, methods: Path) -> list[Path]:
    """Write ``results/<name>/tables/{comparison,ablation,per_class,per_condition}.{csv,md,tex}``; the paths written."""
    from flexseg.analysis.records import load_records
    from flexseg.analysis.scores import Scores
    from flexseg.analysis.tables import write_all

    return write_all(Scores(load_records(benchmark, results, methods)), results / benchmark.name / "tables")


def write_report(
    benchmark: Benchmark, kind: Literal["comparison", "ablation"], results: Path, methods: Path, output: Path
) -> None:
    """Write the report of ``kind`` as a PDF to ``output``; the same inputs give the same bytes."""
    from flexseg.analysis.records import load_records
    from flexseg.analysis.report import make_report
    from flexseg.analysis.scores import Scores

    make_report(Scores(load_records(benchmark, results, methods)), kind, output)
