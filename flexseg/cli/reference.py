"""``flexseg reference …``: the runs that the repository ships for comparison."""

from __future__ import annotations

from typing import Annotated

import typer

from flexseg.benchmark import load_benchmark, select_rows
from flexseg.cli.folders import BENCHMARKS, RESULTS
from flexseg.console import printable

reference = typer.Typer(
    help="The finished runs that the repository ships: evidence that grows run by run.", no_args_is_help=True
)


@reference.callback()
def _group() -> None:
    """The finished runs that the repository ships: evidence that grows run by run."""


@reference.command()
def add(
    name: Annotated[str, typer.Argument(metavar="BENCHMARK", help="A file in benchmarks/, without its ending.")],
    study: Annotated[str, typer.Option(help="The study of the benchmark whose rows are taken.")] = "default",
    rows: Annotated[str, typer.Option(help="Only these rows: a,b,c.")] = "",
    seeds: Annotated[str, typer.Option(help="Only these seeds: 0,1,2.")] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop the runs that are there of the same rows and seeds.")
    ] = False,
) -> None:
    """Add the finished runs to benchmarks/BENCHMARK.reference.csv; once more changes nothing.

    flexseg reference add streetworld --study evidence
    """
    from flexseg.analysis.stats.evidence import entries_of
    from flexseg.analysis.stats.records import load_records
    from flexseg.analysis.stats.reference import add_runs
    from flexseg.benchmark.identity import reference_path

    benchmark = select_rows(load_benchmark(name, BENCHMARKS), study, rows, seeds)
    records = load_records(benchmark, RESULTS)
    entries = entries_of(records)
    lines = add_runs(reference_path(benchmark, BENCHMARKS), benchmark, entries, replace=replace)
    absent = sum(len(benchmark.seeds_of(row)) for row in benchmark.trained_rows) - len(entries)
    if absent:
        lines.insert(0, f"{absent} runs are not finished, or not evaluated on every target: `flexseg status {name}`")
    for line in lines:
        print(printable(line))
