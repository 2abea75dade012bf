"""From records to tables, figures and reports. Reads files only and imports no torch.

In a notebook, :func:`load_scores` reads a results folder. Every figure of the reports is a function of these scores, or
of a frame made of them, which may be filtered or edited before:

    >>> from flexseg.analysis import frame_differences, frame_means, load_scores, plot_differences, plot_miou
    >>> scores = load_scores("results/streetworld")
    >>> figure = plot_differences(scores)
    >>> figure.savefig("differences.pdf")

    >>> frame = frame_differences(scores)
    >>> better = frame[frame["shown"] & (frame["target"] == "Avg5") & (frame["value"] > 0)]
    >>> figure = plot_differences(frame[frame["row"].isin(better["row"])])

Given axes, a function draws one facet into them:

    >>> from matplotlib.figure import Figure
    >>> left, right = Figure(figsize=(7, 3), layout="constrained").subplots(1, 2)
    >>> means = frame_means(scores)
    >>> figure = plot_miou(means[means["target"] == "Avg5"], ax=left)
    >>> figure = plot_differences(frame[frame["target"] == "Avg5"], ax=right)

Axes of your own keep your style; made and filled within ``with styled():`` they look like the reports'.
Columns of the frames: :mod:`flexseg.analysis.frames`. Functions: :mod:`flexseg.analysis.figures.plots`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from flexseg.benchmark import Benchmark
from flexseg.benchmark.identity import tables_folder
from flexseg.benchmark.times import measured

if TYPE_CHECKING:
    from flexseg.analysis.figures.plots import (
        plot_alignment,
        plot_claims,
        plot_classes,
        plot_conditions,
        plot_contrasts,
        plot_dial,
        plot_differences,
        plot_factorial,
        plot_miou,
        plot_outlines,
        plot_rings,
        plot_training,
    )
    from flexseg.analysis.figures.style import styled
    from flexseg.analysis.frames import (
        frame_alignment,
        frame_claims,
        frame_classes,
        frame_conditions,
        frame_contrasts,
        frame_dial,
        frame_differences,
        frame_factorial,
        frame_means,
        frame_outlines,
        frame_rings,
        frame_scores,
        frame_training,
        load_scores,
    )

__all__ = [
    "KINDS", "Kind", "frame_alignment", "frame_claims", "frame_classes", "frame_conditions", "frame_contrasts",
    "frame_dial", "frame_differences", "frame_factorial", "frame_means", "frame_outlines", "frame_rings",
    "frame_scores", "frame_training", "load_scores", "plot_alignment", "plot_claims", "plot_classes",
    "plot_conditions", "plot_contrasts", "plot_dial", "plot_differences", "plot_factorial", "plot_miou",
    "plot_outlines", "plot_rings", "plot_training", "styled", "write_report", "write_tables",
]  # fmt: skip

Kind = Literal["comparison", "ablation", "claims", "page", "summary", "figures"]
CLAIMS: Literal["claims"] = "claims"
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != CLAIMS)
"""What is written of every benchmark; :data:`CLAIMS` only of one that makes claims."""


def __getattr__(name: str) -> Any:
    """Frames and plots, imported when they are first asked for: pandas and seaborn take seconds to start."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {"plot": "figures.plots", "styled": "figures.style"}
    return getattr(import_module(f"{__name__}.{homes.get(name.split('_')[0], 'frames')}"), name)


def write_tables(benchmark: Benchmark, results: Path) -> list[Path]:
    """Write all tables to ``results/<name>/tables`` as CSV, Markdown and LaTeX; the paths written."""
    from flexseg.analysis.stats.records import load_records
    from flexseg.analysis.stats.scores import Scores
    from flexseg.analysis.tables.write import write_all

    with measured(results, benchmark.name, "tables"):
        return write_all(Scores(load_records(benchmark, results)), tables_folder(benchmark, results))


def write_report(benchmark: Benchmark, kind: Kind, results: Path, output: Path) -> None:
    """Write one product to ``output``; the same inputs give the same bytes.

    ``comparison`` and ``ablation`` are PDFs, and so is ``claims``, of a benchmark that makes them; ``page`` is one HTML
    file, ``summary`` is Markdown, and ``figures`` is the Markdown file of the captions, beside which every figure is
    written as PDF, SVG and PNG.
    """
    with measured(results, benchmark.name, kind):
        _write_report(benchmark, kind, results, output)


def _write_report(benchmark: Benchmark, kind: Kind, results: Path, output: Path) -> None:
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
    elif kind == CLAIMS:
        from flexseg.analysis.report.claims import make_claims

        make_claims(scores, output)
    else:
        from flexseg.analysis.report.pdf import make_report

        make_report(scores, kind, output)
