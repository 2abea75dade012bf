"""Score finished runs on the source's own validation images, to see whether a poor row has learnt at all.

A row that is worse on the targets and on the source has learnt less; one that is worse on the targets alone has learnt
something that does not generalise. No target image is used here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from flexseg.benchmark import Benchmark, Run
from flexseg.console import progress_bar
from flexseg.errors import UserError
from flexseg.tasks.datasets import open_index
from flexseg.tasks.jobs import load_trained


def validation_miou(model: Any, benchmark: Benchmark, pool: Any) -> float:
    """Compute the mIoU in percent of a model on a pool of images, over the classes that occur."""
    import torch

    from flexseg.analysis.stats.metrics import mean_iou
    from flexseg.engine.evaluate import evaluate_target

    classes = benchmark.class_set
    table, _ = evaluate_target(model, pool, benchmark.protocol, torch.device("cpu"), classes=classes)
    counts = np.stack(table["confusion"].to_numpy())
    return 100 * float(mean_iou(counts.sum(axis=0).reshape(len(classes), len(classes))))


def validate(benchmark: Benchmark, results: Path, console: Console) -> Path:
    """Score every finished run on the source's validation split; print the means and write ``validation.csv``.

    Raises:
        UserError: the source has no validation images, or no run is finished.
    """
    import torch

    from flexseg.analysis.stats.formats import mean_text, write_csv
    from flexseg.analysis.stats.statistics import t_interval
    from flexseg.data.pool import open_pool

    if not benchmark.domains[benchmark.source].has("val"):
        raise UserError(f"domains.{benchmark.source}.val: the source has no images for validation; give it some")
    torch.set_num_threads(1)
    pool = open_pool([(open_index(benchmark, benchmark.source, results), "val")])
    scores: dict[str, list[float]] = {}
    records = []
    with progress_bar("validating", sum(len(benchmark.seeds_of(row)) for row in benchmark.trained_rows)) as advance:
        for row in benchmark.trained_rows:
            for seed in benchmark.seeds_of(row):
                advance(1, row)
                run = Run(benchmark, row, seed, results)
                if not run.trained:
                    continue
                value = validation_miou(load_trained(run), benchmark, pool)
                scores.setdefault(row, []).append(value)
                records.append({"row": row, "seed": seed, "source_val_miou": value})
    if not records:
        raise UserError(f"no run of these rows is finished: snakemake --cores all --config benchmark={benchmark.name}")
    table = Table(title=f"{benchmark.title}: mIoU on the source's validation images, mean ± 95 % t-interval")
    for heading in ("row", "source validation", "n"):
        table.add_column(heading, justify="left" if heading == "row" else "right")
    for row, values in scores.items():
        table.add_row(row, mean_text(t_interval(np.array(values))), str(len(values)))
    console.print(table)
    path = results / benchmark.name / "tables" / "validation.csv"
    write_csv(path, ["row", "seed", "source_val_miou"], records)
    return path
