"""From records to tables, figures and reports. Reads files only and imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from flexseg.benchmark import Benchmark

Kind = Literal["comparison", "ablation", "page", "summary", "figures"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def write_tables(benchmark: Benchmark, results: Path) -> list[Path]:
    """Write all tables to ``results/<name>/tables`` as CSV, Markdown and LaTeX; the paths written."""
    from flexseg.analysis.stats.records import load_records
    from flexseg.analysis.stats.scores import Scores
    from flexseg.analysis.tables.write import write_all

    return write_all(Scores(load_records(benchmark, results)), results / benchmark.name / "tables")


def write_report(benchmark: Benchmark, kind: Kind, results: Path, output: Path) -> None:
    """Write one product to ``output``; the same inputs give the same bytes.

    ``comparison`` and ``ablation`` are PDFs, ``page`` is one HTML file, ``summary`` is Markdown, and ``figures`` is the
    Markdown file of the captions, beside which every figure is written as PDF, SVG and PNG.
    """
    from flexseg.analysis.stats.records import load_records
    from flexseg.analysis.stats.scores import Scores

    scores = Scores(load_records(benchmark, results))
    if kind == "page":
        from flexseg.analysis.web import write_page

        write_page(scores, output)
    elif kind == "summary":
        from flexseg.analysis.report.summary import write_summary

        write_summary(scores, output)
    elif kind == "figures":
        from flexseg.analysis.figures.export import export_figures

        export_figures(scores, output)
    else:
        from flexseg.analysis.report.pdf import make_report

        make_report(scores, kind, output)
