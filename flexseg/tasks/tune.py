"""Search for the settings that a change of scale makes necessary, on source validation images alone.

Every combination of the benchmark's ``tuning.grid`` is trained like a run of the benchmark, on seeds that the
benchmark does not use, and scored by its mIoU on the source's validation split: no target image is used. The
trials are recorded in ``benchmarks/<name>.tuning.csv``, best first.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from flexseg.benchmark import Benchmark, Row, Run
from flexseg.console import progress_bar
from flexseg.errors import UserError
from flexseg.files import digest, replacing
from flexseg.tasks.datasets import domain_folder, make_dataset, open_index
from flexseg.tasks.jobs import load_trained, train_run
from flexseg.tasks.validate import validation_miou


def trials(benchmark: Benchmark) -> dict[str, dict[str, Any]]:
    """List every combination of the grid: its name and its options.

    Raises:
        UserError: the benchmark has no ``tuning`` block.
    """
    if benchmark.tuning is None:
        raise UserError(f"benchmark {benchmark.name} has no tuning block: give it a row, seeds and a grid of options")
    grid = benchmark.tuning.grid
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return {f"{benchmark.tuning.row}-{digest(options)[:8]}": options for options in combinations}


def run_trial(benchmark: Benchmark, name: str, options: dict[str, Any], seed: int, results: Path) -> float:
    """Train one trial (or find it finished) and return its mIoU on source validation images, in percent."""
    from flexseg.data.pool import open_pool

    assert benchmark.tuning is not None
    base = benchmark.row(benchmark.tuning.row)
    row = Row(**(base.model_dump() | options | {"title": name}))
    trial = benchmark.model_copy(update={"rows": benchmark.rows | {name: row}})
    run = Run(trial, name, seed, results, results / benchmark.name / "tuning" / name / f"seed-{seed}")
    train_run(run, supersede=True)
    pool = open_pool([(open_index(benchmark, benchmark.source, results), "val")])
    return validation_miou(load_trained(run), benchmark, pool)


def tune(benchmark: Benchmark, results: Path, benchmarks: Path, workers: int, console: Console) -> Path:
    """Run the whole search, ``workers`` trials in parallel; write the record and return its path."""
    grid = trials(benchmark)
    assert benchmark.tuning is not None
    for domain in (benchmark.source, benchmark.generated_of(benchmark.tuning.row)):
        if not (domain_folder(results, benchmark, domain) / "index.parquet").is_file():
            make_dataset(benchmark, domain, results)
    tasks = [(name, options, seed) for name, options in grid.items() for seed in benchmark.tuning.seeds]
    rows = []
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        progress_bar(f"tuning {benchmark.tuning.row}", len(tasks)) as advance,
    ):
        pending = {
            pool.submit(run_trial, benchmark, name, options, seed, results): (options, seed)
            for name, options, seed in tasks
        }
        for future in as_completed(pending):
            options, seed = pending[future]
            rows.append({**{key: str(value) for key, value in options.items()}, "seed": seed, "miou": future.result()})
            advance(1)
    frame = pd.DataFrame(rows)
    keys = list(benchmark.tuning.grid)
    means = frame.groupby(keys)["miou"].agg(["mean", "count"]).reset_index()
    means = means.sort_values(["mean", *keys], ascending=[False, *[True] * len(keys)])
    means.columns = [*keys, "source_val_miou", "seeds"]
    path = benchmarks / f"{benchmark.name}.tuning.csv"
    with replacing(path) as temporary:
        means.to_csv(temporary, index=False, float_format="%.2f", lineterminator="\n")
    console.print(means.to_string(index=False), markup=False)
    console.print(f"recorded in {path}; the best settings belong in the benchmark's tuned row")
    return path
