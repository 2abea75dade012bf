"""``flexseg evaluate``: a row's finished runs, or a network or predictions from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexseg.benchmark import Benchmark, Row, load_benchmark, select_rows
from flexseg.benchmark.reading import adopted_file
from flexseg.cli.folders import BENCHMARKS, RESULTS
from flexseg.console import terminal
from flexseg.errors import UserError
from flexseg.files import disk_errors, write_json
from flexseg.kernels import release_kernels


def evaluate(
    name: Annotated[str, typer.Argument(metavar="BENCHMARK", help="A file in benchmarks/, without its ending.")],
    row: Annotated[
        str, typer.Argument(metavar="ROW", help="A row, a method file, or a new name for what was made elsewhere.")
    ],
    seeds: Annotated[str, typer.Option(help="Only these seeds: 0,1,2.")] = "",
    checkpoint: Annotated[Path | None, typer.Option(help="A checkpoint of mmsegmentation; needs --config.")] = None,
    config: Annotated[Path | None, typer.Option(help="The mmseg configuration of the checkpoint.")] = None,
    network: Annotated[Path | None, typer.Option(help="An exported network: TorchScript or ONNX.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="A folder of predicted label maps: <target>/<image id>.png, trainIds.")
    ] = None,
    title: Annotated[str, typer.Option(help="What tables call it, if it was made elsewhere.")] = "",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    receipt: Annotated[
        Path | None, typer.Option(help="Write the outcome here; a recorded failure then exits with 0.")
    ] = None,
    native_kernels: Annotated[
        bool,
        typer.Option("--native-kernels", help="Compute with the fastest instructions of this processor."),
    ] = False,
) -> None:
    """Evaluate a row's finished runs on every target of the benchmark; or what was made elsewhere, under a new name.

    flexseg evaluate streetworld flexseg

    flexseg evaluate gta5_daformer my_net --checkpoint my_net.pth --config my_config.py

    flexseg evaluate gta5_daformer theirs --predictions their_label_maps/
    """
    if native_kernels:
        release_kernels()
    from flexseg.tasks.jobs import evaluate_row

    given = {"checkpoint": checkpoint, "config": config, "network": network, "predictions": predictions}
    paths = {key: str(path.expanduser().resolve()) for key, path in given.items() if path is not None}
    benchmark = load_benchmark(name, BENCHMARKS)
    if paths:
        adopt(benchmark, row, paths | ({"title": title} if title else {}))
    selected = select_rows(benchmark, "default", row, seeds, RESULTS)
    if paths:
        from flexseg.tasks.datasets import require_indices

        require_indices(selected, RESULTS)
    evaluate_row(selected, row, RESULTS, threads, receipt)
    if paths:
        print_scores(benchmark, row, RESULTS, terminal())


def adopt(benchmark: Benchmark, row: str, content: dict[str, Any]) -> None:
    """Write down what a row from elsewhere is, so that tables, reports and ``compare`` find it by its name.

    Raises:
        UserError: the benchmark has such a row, or what is given does not go together or is not there.
    """
    if row in benchmark.rows:
        raise UserError(f"benchmark {benchmark.name} has a row {row}: choose another name for what was made elsewhere")
    try:
        made = Row(**({"title": row} | content))
    except ValueError as error:
        raise UserError(str(error).partition("Value error, ")[2].partition(" [type=")[0] or str(error)) from error
    if made.foreign is None or made.foreign.missing:
        raise UserError(made.foreign.missing if made.foreign else "name a checkpoint, a network or predictions")
    path = adopted_file(benchmark, row, RESULTS)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"title": row} | content)


def print_scores(benchmark: Benchmark, row: str, results: Path, console: Console) -> None:
    """Print the mIoU of a row on every target and average, and its difference from the reference if that is there."""
    from flexseg.analysis.stats.domains import target_title
    from flexseg.analysis.stats.formats import bracket_text, mean_text, number
    from flexseg.analysis.stats.records import load_records
    from flexseg.analysis.stats.scores import Scores

    reference = benchmark.reference
    selected = select_rows(benchmark, "default", f"{reference},{row}", "", results)
    scores = Scores(load_records(selected, results))
    beside = bool(scores.records.finished(reference))
    table = Table(box=None, pad_edge=False)
    table.add_column("mIoU in percent")
    table.add_column(Text(row), justify="right")
    if beside:
        table.add_column(Text(f"minus {reference}"), justify="right")
    for column in scores.columns:
        cells = [Text(target_title(scores, column)), Text(mean_text(scores.mean(row, column)))]
        if beside:
            found = scores.against(row, reference)[column]
            cells.append(Text(f"{number(found.value, 1, sign=True)} {bracket_text(found, 1) if found.n else ''}"))
        table.add_row(*cells)
    console.print(table)
    for note in scores.records.notes(row):
        console.print(note, soft_wrap=True)
