"""What each row costs beside what it reaches, and where its settings come from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from flexseg.analysis.stats.domains import target_title
from flexseg.analysis.stats.formats import DASH, Column, Table, difference_cell, make_row, mean_text, number
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import t_interval
from flexseg.analysis.tables.common import Notes, TableFiles, how
from flexseg.analysis.tables.origins import row_changes, training_changes, value_text
from flexseg.benchmark.schema import ORIGINS

COSTS: dict[str, tuple[str, str, float, int]] = {
    "train_seconds": ("training (s)", "wall time of training", 1.0, 0),
    "train_cpu_seconds": ("processor (s)", "processor time of training, whatever else the machine did", 1.0, 0),
    "images_per_second": ("images/s", "training images a second of wall time", 1.0, 0),
    "step_flops": ("step (GFLOP)", "operations of the last training step, forward and backward", 1e-9, 1),
    "peak_memory_bytes": ("memory (MiB)", "peak memory of the process, or of the GPU", 2.0**-20, 0),
    "parameters": ("parameters (M)", "parameters of the evaluated model", 1e-6, 2),
    "trained_parameters": ("trained (M)", "parameters that are trained, those for training alone among them", 1e-6, 2),
    "inference_flops": ("image (GFLOP)", "operations of predicting an image", 1e-9, 2),
    "inference_seconds": ("image (ms)", "time of predicting an image, in batches", 1e3, 1),
}
"""What ``run.json`` holds of a run's cost → heading, meaning, factor, digits."""


def cost_table(scores: Scores) -> Table:
    """Every row's cost beside its mIoU."""
    notes, rows, benchmark = Notes(scores), [], scores.benchmark
    runs = scores.records.finished()
    # Processor time is the better measure, where every run trained on a CPU and recorded it.
    on_processor = all(run.info.get("device") == "cpu" and run.info.get("train_cpu_seconds") for run in runs)
    key, time_name = ("train_cpu_seconds", "processor time") if on_processor else ("train_seconds", "wall time")
    reference = t_interval(_costs(scores, benchmark.reference, key)).value
    for row in benchmark.rows:
        difference = scores.against(row, benchmark.reference)[scores.main]
        rows.append(
            make_row(
                notes.title(row),
                mean_text(scores.mean(row, scores.main)),
                "reference" if row == benchmark.reference else difference_cell(difference),
                number(t_interval(_costs(scores, row, key)).value / reference, 2),
                *[_cost_text(_costs(scores, row, name), digits) for name, (*_, digits) in COSTS.items()],
                str(len(scores.records.finished(row))),
            )
        )
    columns = [Column("Row", "l"), Column(f"{scores.main} mIoU"), Column(f"Δ {scores.main}"), Column("time ×")]
    columns += [Column(heading) for heading, *_ in COSTS.values()] + [Column("n")]
    meanings = "; ".join(f"{heading}: {meaning}" for heading, meaning, *_ in COSTS.values())
    caption = (
        f"What a row reaches on {target_title(scores, scores.main)} and what its runs cost. time ×: "
        f"{time_name} of training over that of “{benchmark.row(benchmark.reference).title}”; {meanings}. "
        "Operations are floating-point operations of convolutions and matrix products, two a multiply-add; they and "
        "the parameters do not depend on the machine. Costs are means over the finished runs ± half width of the 95 % "
        f"t-interval where they vary. {how(scores)}"
    )
    return Table("cost", f"{benchmark.title}: cost", caption, columns, rows, notes.lines(), wide=True)


def origins_table(scores: Scores) -> Table:
    """How many of a row's settings are published, assumed or scaled, and what the benchmark file sets for it."""
    notes, rows = Notes(scores), []
    for row in scores.benchmark.rows:
        options = _options(scores, row)
        kept = [each for each in options.values() if each.get("value") == each.get("default")]
        counts = [sum(each.get("origin") == origin for each in kept) for origin in ORIGINS]
        rows.append(make_row(notes.title(row), *[str(count or DASH) for count in counts], _set_here(scores, row)))
    columns = [Column("Row", "l"), *[Column(origin) for origin in ORIGINS], Column("set for this row", "l")]
    caption = (
        "Where each row's settings come from: the number of options at their default, by the origin of the default "
        "(published; assumed, where the paper leaves it open; scaled with this benchmark's images, trunk or schedule; "
        "own, of a control that this suite adds), and what the benchmark file sets instead. Every option with its "
        "value and meaning stands in origins.csv."
    )
    return Table("origins", f"{scores.benchmark.title}: origin of settings", caption, columns, rows, notes.lines())


def _set_here(scores: Scores, row: str) -> str:
    own = [
        f"{name} {value_text(each.get('value'))}"
        for name, each in _options(scores, row).items()
        if each.get("value") != each.get("default")
    ]
    tuned = " (on source validation)" if own and scores.benchmark.row(row).tuned else ""
    return "; ".join([*([", ".join(own) + tuned] if own else []), *row_changes(scores.benchmark, row)]) or DASH


def _options(scores: Scores, row: str) -> dict[str, dict[str, object]]:
    runs = scores.records.finished(row)
    return runs[0].options if runs else {}


def _costs(scores: Scores, row: str, key: str) -> NDArray[np.float64]:
    """One cost of the finished runs of ``row``, in the unit of its heading."""
    infos = [run.info for run in scores.records.finished(row)]
    return np.array([float(info[key]) * COSTS[key][2] for info in infos if info.get(key) is not None])


def _cost_text(values: NDArray[np.float64], digits: int) -> str:
    if len(values) and np.ptp(values) == 0:
        return number(float(values[0]), digits)
    return mean_text(t_interval(values), digits)


def _cost_records(scores: Scores) -> Iterator[dict[str, object]]:
    for row in scores.benchmark.rows:
        name = {"row": row, "title": scores.benchmark.row(row).title}
        for run in scores.records.finished(row):
            for key in COSTS:
                if run.info.get(key) is not None:
                    yield name | {"quantity": key, "seed": run.seed, "value": run.info[key]}
        mean = scores.mean(row, scores.main)
        yield name | {"quantity": f"mean mIoU on {scores.main}", "value": mean.value, "n": mean.n}


def _origin_records(scores: Scores) -> Iterator[dict[str, object]]:
    benchmark = scores.benchmark
    for row in benchmark.rows:
        spec = benchmark.row(row)
        place: dict[str, object] = {"row": row, "method": spec.method}
        for name, option in _options(scores, row).items():
            kept = option.get("value") == option.get("default")
            yield place | {
                "option": name,
                "value": value_text(option.get("value")),
                "default": value_text(option.get("default")),
                "origin": option.get("origin", "") if kept else "tuned" if spec.tuned else "set",
                "meaning": " ".join(str(option.get("help") or "").split()),
            }
        shared, own = (each.model_dump(mode="json") for each in (benchmark.training, benchmark.training_of(row)))
        for key, meaning in training_changes(benchmark, row).items():
            values = {"value": value_text(own[key]), "default": value_text(shared[key])}
            yield place | {"option": f"training.{key}", **values, "origin": "set", "meaning": meaning}


COST_TABLES: dict[str, TableFiles] = {
    "cost": (cost_table, ["row", "title", "quantity", "seed", "value", "n"], _cost_records),
    "origins": (
        origins_table, ["row", "method", "option", "value", "default", "origin", "meaning"], _origin_records,
    ),
}  # fmt: skip
"""The tables of this module, by name: how each is made for people, and its CSV."""
