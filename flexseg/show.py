"""What the command line prints for people: methods with their options, and the state of every run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from flexseg.benchmark import Benchmark
from flexseg.errors import UserError


def describe_methods(methods: Path, console: Console) -> None:
    """Print every method with its options; a broken file with its error."""
    from flexseg.method import describe_options, load_method, method_names

    for name in method_names(methods):
        try:
            method = load_method(name, methods)
        except UserError as error:
            console.print(f"{name}: broken\n  {error}\n", style="red", markup=False, highlight=False)
            continue
        table = Table(title=f"{name}: {method.title}", caption=method.paper, title_justify="left", min_width=60)
        for heading in ("option", "default", "assumed", "what it does"):
            table.add_column(heading)
        for key, option in describe_options(method.Options()).items():
            table.add_row(key, str(option["default"]), "yes" if option["assumed"] else "", option["help"])
        console.print(table, markup=False)


def print_status(benchmark: Benchmark, methods: Path, results: Path, console: Console, *, retry: bool) -> bool:
    """Print the state of every run; with ``retry`` forget the failures. Returns whether any run failed."""
    from flexseg.analysis.records import load_records

    runs = load_records(benchmark, results, methods).runs.values()
    counts = {state: sum(run.status == state for run in runs) for state in ("finished", "failed", "stale", "missing")}
    console.print(f"{benchmark.name}: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count))
    failed = [run for run in runs if run.status == "failed"]
    for run in failed:
        console.print(f"{run.row}, seed {run.seed}: {run.reason}", markup=False, soft_wrap=True)
        if retry:
            for path in (
                run.folder / "failure.json",
                run.folder / "trained.json",
                run.folder.parent / "evaluated.json",
            ):
                path.unlink(missing_ok=True)
    if failed and retry:
        console.print("forgotten: start snakemake again to try them again")
    elif failed:
        console.print(
            f"Mend the cause (a changed method file is tried again by itself), or try the same again: "
            f"flexseg status {benchmark.name} --retry",
            soft_wrap=True,
        )
    return bool(failed) and not retry
